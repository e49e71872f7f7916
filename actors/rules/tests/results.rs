//! Rules over rows of results, as a user of the crate writes them: against slow, obvious models, and with every mistake one can make.

use proptest::prelude::*;
use std::collections::BTreeSet;
use tidegate_rules::sigma::compile_over;
use tidegate_rules::{Hit, Keys, Kind, Level, Origin, Pattern, Record, RuleSet, Streams, Type, Value};

const SECOND: u64 = 1_000_000_000;

fn streams() -> Streams {
    let mut streams = Streams::default();
    let mut add = |name: &str, keys, columns: &[(&str, Type)]| {
        streams.add(name, keys, columns.iter().copied()).unwrap();
    };
    add("bars.1s", Keys::Symbols, &[("close", Type::Number), ("state", Type::Text)]);
    add("anomaly.1s", Keys::Symbols, &[("state", Type::Number), ("score", Type::Number)]);
    add("ind.1s", Keys::Symbols, &[("rsi_14", Type::Number)]);
    add("hosts.1m", Keys::Hosts, &[("flows", Type::Number)]);
    streams
}

/// A row of a stream: its cells in the order of its columns.
fn row(streams: &Streams, name: &str, key: &str, ts: u64, cells: &[Value]) -> Record {
    let kind = streams.kind(name).unwrap();
    let mut record = Record::new(kind, Origin::Own, ts, (ts, ts));
    record.put(Streams::entity().unwrap(), Value::from(key.to_owned()));
    streams.fields(kind).zip(cells).for_each(|(field, cell)| record.put(field, cell.clone()));
    record
}

fn hits(set: &mut RuleSet, record: &Record) -> Vec<Hit> {
    let mut found = Vec::new();
    set.take(record, |hit| found.push(hit));
    found
}

fn pattern(text: &str) -> RuleSet {
    let pattern = Pattern::over(text, &streams()).unwrap_or_else(|error| panic!("{error}"));
    RuleSet::new(Default::default(), vec![pattern])
}

#[test]
fn a_match_is_of_one_key_over_several_streams() {
    let streams = streams();
    let mut set = pattern(
        "crash: anomaly.1s(score > 2 and state = 2) then bars.1s(close < 90.5 and state = final) within 5s \
         without ind.1s(rsi_14 >= 70) severity high",
    );
    let anomaly =
        |key, at, score: f64| row(&streams, "anomaly.1s", key, at * SECOND, &[2.0.into(), score.into()]);
    let bar =
        |key, at, close: f64| row(&streams, "bars.1s", key, at * SECOND, &[close.into(), "final".into()]);
    let rsi = |key, at, rsi: f64| row(&streams, "ind.1s", key, at * SECOND, &[rsi.into()]);
    assert!(hits(&mut set, &anomaly("A", 1, 3.0)).is_empty());
    assert!(hits(&mut set, &bar("B", 2, 50.0)).is_empty(), "another key");
    assert!(hits(&mut set, &bar("A", 3, 91.0)).is_empty(), "not low enough");
    let found = hits(&mut set, &bar("A", 4, 90.4));
    assert_eq!(found.len(), 1);
    let hit = &found[0];
    assert_eq!((hit.kind.as_str(), hit.entity.as_str(), hit.level), ("pattern:crash", "A", Level::High));
    assert_eq!((hit.first_ts, hit.ts, hit.units), (SECOND, 4 * SECOND, (4 * SECOND, 4 * SECOND)));
    // What must not come between ends the match of its key alone.
    hits(&mut set, &anomaly("A", 10, 3.0));
    hits(&mut set, &anomaly("B", 10, 3.0));
    hits(&mut set, &rsi("A", 11, 70.0));
    assert!(hits(&mut set, &bar("A", 12, 1.0)).is_empty());
    assert_eq!(hits(&mut set, &bar("B", 12, 1.0)).len(), 1);
    // A value that is missing meets nothing.
    hits(&mut set, &row(&streams, "anomaly.1s", "A", 20 * SECOND, &[2.0.into()]));
    assert!(hits(&mut set, &bar("A", 21, 1.0)).is_empty());
    assert!(!set.of_traffic());
}

#[test]
fn alerts_of_a_key_stand_beside_its_rows_and_records_of_traffic_do_not() {
    let streams = streams();
    let mut set = pattern("alert(kind = regime-change) then bars.1s(close > 10) within 1m by key");
    let alert = Record::new(Kind::Alert, Origin::Own, SECOND, (1, 1))
        .with("kind", "regime-change")
        .with("entity", "A");
    hits(&mut set, &alert);
    let found = hits(&mut set, &row(&streams, "bars.1s", "A", 2 * SECOND, &[11.0.into()]));
    assert_eq!((found.len(), found[0].entity.as_str()), (1, "A"));
    let mut any = RuleSet::new(Default::default(), vec![Pattern::parse("any within 1s").unwrap()]);
    assert!(any.of_traffic());
    assert!(
        hits(&mut any, &row(&streams, "bars.1s", "A", 0, &[1.0.into()])).is_empty(),
        "a row is no traffic"
    );
}

#[test]
fn mistakes_name_their_place_and_what_is_allowed() {
    for (text, at, parts) in [
        ("bars.5s within 1s", "bars.5s", &["no stream", "bars.1s, anomaly.1s"][..]),
        ("bar.1s within 1s", "bar.1s", &["did you mean `bars.1s`"]),
        (
            "bars.1s(clsoe > 1) within 1s",
            "clsoe",
            &["bars.1s has no field `clsoe`", "did you mean `close`", "state, symbol"],
        ),
        ("bars.1s(flows > 1) within 1s", "flows", &["no field `flows`"]),
        ("bars.1s(host = x) within 1s", "host", &["no field `host`"]),
        ("bars.1s(close contains 1) within 1s", "contains", &["holds numbers", "<="]),
        ("bars.1s(close = low) within 1s", "low", &["`low` is no number"]),
        ("bars.1s(close in (1, x)) within 1s", "x)", &["`x` is no number"]),
        ("bars.1s(close in 10.0.0.0/8) within 1s", "10.0", &["(NUMBER"]),
        ("bars.1s(state > 1) within 1s", "> 1", &["holds texts", "startswith"]),
        ("bars.1s(symbol < 3) within 1s", "< 3", &["holds texts"]),
        (
            "bars.1s then hosts.1m within 1s",
            "hosts",
            &["by symbol", "`hosts.1m` are by host", "one kind of key"],
        ),
        ("bars.1s then flow within 1s", "flow", &["record of traffic"]),
        ("bars.1s within 1s without any", "any", &["any record of traffic"]),
        ("flow then bars.1s within 1s", "flow", &["`flow` is a record of traffic"]),
        ("bars.1s within 1s by close, rsi_14", "rsi_14", &["no field `rsi_14`"]),
        ("bars.1s then anomaly.1s within 1s by close", "close", &["anomaly.1s has no field `close`"]),
    ] {
        let error = Pattern::over(text, &streams()).unwrap_err();
        assert_eq!(Some(error.at), text.find(at), "{text}: {error}");
        parts.iter().for_each(|part| assert!(error.reason.contains(part), "{text}: {error}"));
    }
    // Without streams nothing is promised of any.
    let error = Pattern::parse("bars.1s within 1s").unwrap_err();
    assert!(error.reason.contains("no stream that is computed here"), "{error}");
}

#[test]
fn what_there_is_elsewhere_is_said_with_the_place_where() {
    let mut streams = streams();
    streams.advise("surface.", "a server computes it");
    let error = Pattern::over("surface.rsi(rsi_14 < 20) within 1s", &streams).unwrap_err();
    assert!(
        error.reason.contains("is no stream that is computed here (a server computes it); allowed: "),
        "{error}"
    );
    let error = Pattern::over("corr.all within 1s", &streams).unwrap_err();
    assert!(error.reason.contains("is no stream that is computed here; allowed: "), "{error}");
    let rule = "title: x\nname: low\nlogsource: {product: tidegate, service: surface.rsi}\n\
                detection: {selection: {rsi_14: 3}, condition: selection}\n";
    let errors = compile_over(&[("r.yml".to_owned(), rule.to_owned())], &streams).unwrap_err();
    assert!(errors[0].to_string().ends_with(" (a server computes it)"), "{}", errors[0]);
}

fn sigma(rules: &str) -> Result<RuleSet, String> {
    let compiled = compile_over(&[("r.yml".to_owned(), rules.to_owned())], &streams());
    compiled.map(|compiled| RuleSet::new(compiled, Vec::new())).map_err(|errors| errors[0].to_string())
}

const LOW: &str = "title: Low close\nname: low\nlogsource: {product: tidegate, service: bars.1s}\n\
detection: {s: {close|lt: 10, state: final}, condition: s}\n---\n\
title: Odd\nname: odd\nlogsource: {product: tidegate, service: anomaly.1s}\ndetection: {s: {score|gte: 2}, condition: s}\n";

#[test]
fn sigma_rules_read_streams_as_services() {
    let streams = streams();
    let mut set = sigma(LOW).unwrap();
    let found = hits(&mut set, &row(&streams, "bars.1s", "A", 1, &[9.0.into(), "final".into()]));
    assert_eq!((found.len(), found[0].kind.as_str(), found[0].entity.as_str()), (1, "sigma:low", "A"));
    assert!(hits(&mut set, &row(&streams, "bars.1s", "A", 1, &[10.0.into(), "final".into()])).is_empty());
    let temporal = format!(
        "{LOW}---\ntitle: Both\nname: both\nlevel: high\n\
         correlation: {{type: temporal, rules: [low, odd], group-by: [symbol], timespan: 5s}}\n"
    );
    let mut set = sigma(&temporal).unwrap();
    let odd = |key, at| row(&streams, "anomaly.1s", key, at * SECOND, &[2.0.into(), 2.0.into()]);
    let low = |key, at| row(&streams, "bars.1s", key, at * SECOND, &[9.0.into(), "final".into()]);
    assert!(hits(&mut set, &odd("A", 1)).is_empty() && hits(&mut set, &low("B", 2)).is_empty());
    let found = hits(&mut set, &low("A", 3));
    assert_eq!((found.len(), found[0].kind.as_str(), found[0].entity.as_str()), (1, "sigma:both", "A"));
    assert_eq!((found[0].first_ts, found[0].units), (SECOND, (3 * SECOND, 3 * SECOND)));
    assert!(hits(&mut set, &low("A", 7)).is_empty(), "too late");
}

#[test]
fn wrong_sigma_rules_say_where() {
    let wrong = |from: &str, to: &str| {
        assert!(LOW.contains(from));
        sigma(&LOW.replacen(from, to, 1)).err().unwrap()
    };
    assert!(wrong("bars.1s", "bars.2s").contains("allowed: alert, bars.1s, anomaly.1s"));
    assert!(wrong("service: bars.1s", "category: bars").contains("no categories"));
    assert!(wrong(", service: bars.1s", "").contains("needs a service"));
    assert!(wrong("close|lt", "clsoe|lt").contains("did you mean `close`"));
    assert!(wrong("close|lt: 10", "close|contains: 10").contains("holds numbers"));
    assert!(wrong("close|lt: 10", "close: ten").contains("`ten` is no number"));
    assert!(wrong("state: final", "state|gt: 3").contains("holds texts"));
    let mixed = format!(
        "{LOW}---\ntitle: h\nname: h\nlogsource: {{product: tidegate, service: hosts.1m}}\n\
         detection: {{s: {{flows|gt: 1}}, condition: s}}\n---\n\
         title: c\ncorrelation: {{type: temporal, rules: [low, h], timespan: 5s}}\n"
    );
    assert!(sigma(&mixed).err().unwrap().contains("by host"));
}

/// Which of the few things a random row is: one of three streams, with a value that passes or does not.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    gap: u64,
    stream: usize,
    passes: bool,
    key: usize,
}

const NAMES: [&str; 3] = ["bars.1s", "anomaly.1s", "ind.1s"];
const COLUMNS: [&str; 3] = ["close", "score", "rsi_14"];
const KEYS: [&str; 3] = ["A", "B", "C"];

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let one = (0u64..3, 0usize..3, any::<bool>(), 0usize..3).prop_map(|(gap, stream, passes, key)| Drawn {
        gap,
        stream,
        passes,
        key,
    });
    prop::collection::vec(one, 1..90)
}

/// The rows, and the second of each.
fn rows(drawn: &[Drawn]) -> Vec<(u64, Record)> {
    let streams = streams();
    let mut now = 0;
    let make = |drawn: &Drawn| {
        now += drawn.gap;
        let value = Value::from(if drawn.passes { 1.0 } else { 0.0 });
        let cells = if drawn.stream == 1 { vec![Value::from(0.0), value] } else { vec![value] };
        (now, row(&streams, NAMES[drawn.stream], KEYS[drawn.key], now * SECOND, &cells))
    };
    drawn.iter().map(make).collect()
}

proptest! {
    /// Every beginning followed by itself, row by row, the way one would by hand.
    #[test]
    fn matches_over_streams_are_those_of_an_obvious_matcher(
        drawn in drawn(),
        steps in prop::collection::vec(0usize..3, 1..4),
        without in prop::option::of(0usize..3),
        within in 1u64..15,
    ) {
        let step = |stream: &usize| format!("{}({} = 1)", NAMES[*stream], COLUMNS[*stream]);
        let mut text = steps.iter().map(step).collect::<Vec<_>>().join(" then ");
        text += &format!(" within {within}s");
        if let Some(without) = &without {
            text += &format!(" without {}", step(without));
        }
        let rows = rows(&drawn);
        let mut expected = Vec::new();
        for (begin, first) in drawn.iter().enumerate() {
            if !first.passes || first.stream != steps[0] {
                continue;
            }
            let (mut next, mut at, mut alive) = (1, begin, true);
            while alive && next < steps.len() {
                at += 1;
                let Some(row) = drawn.get(at) else { break };
                if rows[at].0 - rows[begin].0 > within {
                    alive = false;
                } else if row.key == first.key && row.passes {
                    alive = Some(row.stream) != without;
                    next += usize::from(alive && row.stream == steps[next]);
                }
            }
            if alive && next == steps.len() {
                expected.push((at, rows[begin].0));
            }
        }
        expected.sort_unstable();
        let mut set = pattern(&text);
        let mut found = Vec::new();
        for (at, (_, record)) in rows.iter().enumerate() {
            for hit in hits(&mut set, record) {
                prop_assert_eq!(hit.entity.as_str(), KEYS[drawn[at].key]);
                found.push((at, hit.first_ts / SECOND, hit.seen));
            }
        }
        // A hit stands for all matches that its row completes, and begins with the oldest.
        let mut told: Vec<(usize, u64, u64)> = Vec::new();
        for (at, begin) in expected {
            match told.last_mut() {
                Some((last, _, seen)) if *last == at => *seen += 1,
                _ => told.push((at, begin, 1)),
            }
        }
        prop_assert_eq!(found, told);
        prop_assert_eq!(set.forgotten(), 0);
    }

    /// Correlations over rows against counting everything again for every row: per key, and over all keys.
    #[test]
    fn counts_over_streams_are_those_of_the_window(
        drawn in drawn(),
        threshold in 1u64..4,
        kind in 0usize..3,
        by_key in any::<bool>(),
    ) {
        let group = if by_key { ", group-by: [key]" } else { "" };
        let part = match kind {
            0 => format!("type: event_count, rules: [low], condition: {{gte: {threshold}}}"),
            1 => format!("type: value_count, rules: [low], condition: {{field: symbol, gte: {threshold}}}"),
            _ => "type: temporal, rules: [low, odd]".to_owned(),
        };
        let rules = format!(
            "title: a\nname: low\nlogsource: {{product: tidegate, service: bars.1s}}\ndetection: {{s: {{close: 1}}, condition: s}}\n---\n\
             title: b\nname: odd\nlogsource: {{product: tidegate, service: anomaly.1s}}\ndetection: {{s: {{score|gt: 0.5}}, condition: s}}\n---\n\
             title: c\nname: c\ncorrelation: {{{part}, timespan: 6s{group}}}\n"
        );
        let mut set = sigma(&rules).unwrap();
        let rows = rows(&drawn);
        for (at, (now, record)) in rows.iter().enumerate() {
            let met: Vec<String> = hits(&mut set, record).into_iter().map(|hit| hit.kind).collect();
            let counts = |one: &Drawn| one.passes && (one.stream == 0 || (kind == 2 && one.stream == 1));
            let window = drawn[..=at].iter().zip(&rows).filter(|(one, (then, _))| {
                counts(one) && now - then <= 6 && (!by_key || one.key == drawn[at].key)
            });
            let count = match kind {
                0 => window.count() as u64,
                1 => window.map(|(one, _)| one.key).collect::<BTreeSet<_>>().len() as u64,
                _ => window.map(|(one, _)| one.stream).collect::<BTreeSet<_>>().len() as u64,
            };
            let enough = count >= if kind == 2 { 2 } else { threshold };
            prop_assert_eq!(met.contains(&"sigma:c".to_owned()), counts(&drawn[at]) && enough, "row {}", at);
        }
    }

    /// Any text over streams is read or refused with a place.
    #[test]
    fn any_text_is_read_or_refused(
        text in "(bars\\.1s|hosts\\.1m|anomaly\\.1s|alert|flow|close|score|symbol|key|then|within|without|by|and|>|=|in|\\(|\\)|,|1|1s| ){0,24}",
    ) {
        if let Err(error) = Pattern::over(&text, &streams()) {
            prop_assert!(error.at <= text.len());
        }
    }
}

#[test]
fn groups_are_bounded_and_what_is_given_up_is_counted() {
    let streams = streams();
    let mut set = pattern("bars.1s(close = 1) then bars.1s(close = 2) within 1d");
    let many = tidegate_rules::pattern::GROUPS_MAX as u64 + 1_000;
    for key in 0..many {
        hits(&mut set, &row(&streams, "bars.1s", &key.to_string(), key, &[1.0.into()]));
    }
    assert_eq!(set.forgotten(), 1_000);
    // The newest are there, the oldest are not.
    let last = (many - 1).to_string();
    assert_eq!(hits(&mut set, &row(&streams, "bars.1s", &last, many, &[2.0.into()])).len(), 1);
    assert!(hits(&mut set, &row(&streams, "bars.1s", "0", many, &[2.0.into()])).is_empty());
}
