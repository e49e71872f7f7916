//! All rules over one stream of records.

use crate::pattern::{Matched, Pattern};
use crate::record::{Kind, Record, Value};
use crate::sigma::{Compiled, Counting};

/// How bad a rule says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For context.
    Informational,
    /// Worth a look when there is time.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
    /// Worth dropping everything for.
    Critical,
}

impl Level {
    /// Reads Sigma's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "informational" => Self::Informational,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }

    /// The score of a hit. Rules say yes or no; so that their alerts can be ranked among others, each level has a place on the scale.
    #[must_use]
    pub const fn score(self) -> f64 {
        match self {
            Self::Informational => 0.5,
            Self::Low => 0.6,
            Self::Medium => 0.8,
            Self::High => 0.9,
            Self::Critical => 0.95,
        }
    }
}

/// A rule that was met.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// `sigma:NAME` or `pattern:NAME`.
    pub kind: String,
    /// The rule's title, or the pattern's text.
    pub title: String,
    /// How bad.
    pub level: Level,
    /// Technique in MITRE ATT&CK.
    pub technique: Option<String>,
    /// The group it was met for; who opened the connection where there is none.
    pub entity: String,
    /// Who was asked, in the record that met it.
    pub peer: Option<String>,
    /// On which port.
    pub port: Option<u16>,
    /// When, ns since 1970.
    pub ts: u64,
    /// Time of the first record it rests on, ns.
    pub first_ts: u64,
    /// First and last packet or row it rests on.
    pub units: (u64, u64),
    /// What was counted: records, values, rules, matches.
    pub seen: u64,
    /// From how many on it speaks.
    pub expected: u64,
}

/// Rules and patterns.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    sigma: Compiled,
    kinds: Vec<String>,
    patterns: Vec<Pattern>,
    met: Vec<bool>,
    matches: Vec<Matched>,
    records: u64,
}

/// Longest name of a rule made of its title.
const NAME_MAX: usize = 60;

fn kind(names: &[String], title: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let source = names.first().map_or(title, String::as_str);
    let mut name = String::new();
    for c in source.chars() {
        if plain(c) {
            name.push(c.to_ascii_lowercase());
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
        if name.len() >= NAME_MAX {
            break;
        }
    }
    format!("sigma:{}", name.trim_end_matches('-'))
}

impl RuleSet {
    /// These rules and patterns.
    #[must_use]
    pub fn new(sigma: Compiled, patterns: Vec<Pattern>) -> Self {
        let rules = sigma.rules.iter().map(|rule| &rule.about);
        let correlations = sigma.correlations.iter().map(|correlated| &correlated.about);
        let kinds = rules.chain(correlations).map(|about| kind(&about.names, &about.title)).collect();
        Self { met: vec![false; sigma.rules.len()], kinds, sigma, patterns, ..Self::default() }
    }

    /// Whether there is no rule in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sigma.rules.is_empty() && self.patterns.is_empty()
    }

    /// Whether a rule looks at such records.
    pub fn looks_at(&self, takes: impl Fn(Kind) -> bool) -> bool {
        let rules = self.sigma.rules.iter().filter_map(|rule| rule.source.kind);
        rules.chain(self.patterns.iter().flat_map(Pattern::kinds).flatten()).any(takes)
    }

    /// Whether a rule looks at records of traffic.
    #[must_use]
    pub fn of_traffic(&self) -> bool {
        let any = self.patterns.iter().flat_map(Pattern::kinds).any(|kind| kind.is_none())
            || self.sigma.rules.iter().any(|rule| rule.source.kind.is_none());
        any || self.looks_at(|kind| !matches!(kind, Kind::Row(_) | Kind::Alert))
    }

    /// Takes a record and gives what it meets: rules in their order, then correlations, then patterns.
    pub fn take(&mut self, record: &Record, mut hit: impl FnMut(Hit)) {
        self.records += 1;
        let rules = self.sigma.rules.len();
        for (at, rule) in self.sigma.rules.iter().enumerate() {
            self.met[at] = rule.source.takes(record) && rule.expr.holds(record);
            if self.met[at] && rule.speaks {
                let about = &rule.about;
                hit(of(record, &self.kinds[at], &about.title, about.level, about.technique.clone()));
            }
        }
        for (at, correlated) in self.sigma.correlations.iter_mut().enumerate() {
            let mut met = None;
            for place in 0..correlated.rules.len() {
                if !self.met[correlated.rules[place]] {
                    continue;
                }
                met = correlated.take(place, record).or(met);
                // A record counts once, however many of the rules it meets.
                if correlated.counting != Counting::Rules {
                    break;
                }
            }
            let Some(met) = met else { continue };
            let about = &correlated.about;
            let base =
                of(record, &self.kinds[rules + at], &about.title, about.level, about.technique.clone());
            let entity = correlated.group(record);
            hit(Hit {
                entity: if entity.is_empty() { base.entity } else { entity },
                first_ts: met.first_ts,
                units: match record.kind {
                    Kind::Row(_) => base.units,
                    _ => (met.first_unit.min(base.units.0), base.units.1),
                },
                seen: met.count,
                expected: correlated.threshold,
                ..base
            });
        }
        for pattern in &mut self.patterns {
            self.matches.clear();
            pattern.take(record, &mut self.matches);
            if self.matches.is_empty() {
                continue;
            }
            let kind = format!("pattern:{}", pattern.name);
            let base = of(record, &kind, &pattern.text, pattern.level, None);
            let entity = pattern.group(record);
            // Rows are numbered in each stream, and a match may begin in another one than it ends in.
            let of_rows = matches!(record.kind, Kind::Row(_));
            let first = self.matches.iter().map(|found| found.first_unit).min().filter(|_| !of_rows);
            let (first_ts, unit) = (self.matches[0].first_ts, first.unwrap_or(base.units.0));
            hit(Hit {
                entity: if entity.is_empty() { base.entity } else { entity },
                first_ts: first_ts.min(base.ts),
                units: (unit.min(base.units.0), base.units.1),
                seen: self.matches.len() as u64,
                ..base
            });
        }
    }

    /// Records taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Groups and beginnings that rules forgot for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        let patterns: u64 = self.patterns.iter().map(Pattern::forgotten).sum();
        self.sigma.correlations.iter().map(|correlated| correlated.forgotten()).sum::<u64>() + patterns
    }
}

/// A hit of one record.
fn of(record: &Record, kind: &str, title: &str, level: Level, technique: Option<String>) -> Hit {
    let text = |name: &str| record.first(name).map(|value| value.text().into_owned());
    let port =
        |name: &str| record.first(name).and_then(Value::number).filter(|port| (0.0..65_536.0).contains(port));
    Hit {
        kind: kind.to_owned(),
        title: title.to_owned(),
        level,
        technique,
        entity: text("id.orig_h").or_else(|| text("entity")).unwrap_or_else(|| "unknown".to_owned()),
        peer: text("id.resp_h").or_else(|| text("peer")),
        port: port("id.resp_p").or_else(|| port("port")).map(|port| port as u16),
        ts: record.ts,
        first_ts: record.ts,
        units: record.units,
        seen: 1,
        expected: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Origin};
    use crate::sigma::compile;

    const RULES: &str = "title: Refused Connection!\nlogsource: {category: firewall}\ndetection: {s: {conn_state: REJ}, condition: s}\n---\n\
title: part\nname: part\nlogsource: {product: zeek, service: conn}\ndetection: {s: {dst_port: 22}, condition: s}\n---\n\
title: Many\nname: many\nlevel: critical\ntags: [attack.t1110.001]\n\
correlation: {type: event_count, rules: part, group-by: src_ip, timespan: 1m, condition: {gte: 3}}\n";

    #[test]
    fn rules_correlations_and_patterns_hit() {
        let compiled = compile(&[("r".to_owned(), RULES.to_owned())]).unwrap();
        let pattern =
            Pattern::parse("twice: flow(id.resp_p = 22) times 2 within 1m by id.orig_h severity low")
                .unwrap();
        let mut set = RuleSet::new(compiled, vec![pattern]);
        let mut hits = Vec::new();
        for (at, state) in ["SF", "REJ", "SF"].into_iter().enumerate() {
            let at = at as u64;
            let record = Record::new(Kind::Flow, Origin::Own, at * 1_000_000_000, (at * 10 + 1, at * 10 + 5))
                .with("conn_state", state)
                .with("id.orig_h", "10.0.0.1")
                .with("id.resp_h", "10.0.0.2")
                .with("id.resp_p", 22.0);
            set.take(&record, |hit| hits.push(hit));
        }
        let kinds: Vec<&str> = hits.iter().map(|hit| hit.kind.as_str()).collect();
        assert_eq!(kinds, ["sigma:refused-connection", "pattern:twice", "sigma:many", "pattern:twice"]);
        let many = &hits[2];
        assert_eq!(
            (many.entity.as_str(), many.peer.as_deref(), many.port),
            ("10.0.0.1", Some("10.0.0.2"), Some(22))
        );
        assert_eq!(
            (many.level, many.technique.as_deref(), many.seen, many.expected),
            (Level::Critical, Some("T1110.001"), 3, 3)
        );
        assert_eq!((many.first_ts, many.units), (0, (1, 25)));
        assert_eq!(
            (hits[1].units, hits[1].level, set.records(), set.forgotten()),
            ((1, 15), Level::Low, 3, 0)
        );
    }
}
