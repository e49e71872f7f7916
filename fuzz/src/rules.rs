//! Rules of users and rows of logs: whatever comes is taken whole or refused with a place, and runs within its bounds.

use tidegate_alert::State;
use tidegate_rules::{Kind, Origin, Pattern, Record, Rows, RuleSet, sigma};

/// Records of each kind with values that rules may ask for.
fn records() -> Vec<Record> {
    let texts = ["S0", "10.0.0.1", "example.com", "/login", "80", "", "ä"];
    (0..40u64)
        .map(|at| {
            let kind = Kind::ALL[at as usize % Kind::ALL.len()];
            let text = texts[at as usize % texts.len()].to_owned();
            let mut record = Record::new(kind, Origin::Eve, at * 700_000_000, (at + 1, at + 1));
            for name in ["id.orig_h", "id.resp_p", "conn_state", "query", "uri", "method", "kind", "entity"] {
                record = record.with(name, text.clone());
            }
            record.with("orig_bytes", at as f64)
        })
        .collect()
}

/// Runs rules: twice the same, hits that say whom and where.
fn run(set: &RuleSet) {
    let hits = || {
        let (mut set, mut hits) = (set.clone(), Vec::new());
        records().iter().for_each(|record| set.take(record, |hit| hits.push(hit)));
        hits
    };
    let first = hits();
    assert_eq!(first, hits());
    for hit in first {
        assert!(!hit.kind.is_empty() && hit.units.0 <= hit.units.1 && hit.first_ts <= hit.ts, "{hit:?}");
    }
}

/// A file of Sigma rules.
///
/// # Panics
/// When a refusal has no place or reason, or a rule that was taken does not keep its bounds.
pub fn sigma(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match sigma::compile(&[("f".to_owned(), text.to_owned())]) {
        Ok(compiled) => run(&RuleSet::new(compiled, Vec::new())),
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(errors.iter().all(|error| error.line >= 1 && !error.reason.is_empty()), "{errors:?}");
        }
    }
}

/// A pattern.
///
/// # Panics
/// As [`sigma`].
pub fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Pattern::parse(text) {
        Ok(pattern) => run(&RuleSet::new(sigma::Compiled::default(), vec![pattern])),
        Err(error) => {
            assert!(text.is_char_boundary(error.at) && !error.reason.is_empty());
            assert_eq!(error.to_string().lines().count(), 3, "{error}");
        }
    }
}

/// A store of alerts, and the same bytes as lines of a log.
///
/// # Panics
/// When what a store says changes as it is written anew, or time goes back.
pub fn alerts(bytes: &[u8]) {
    if let Ok((state, ending)) = State::read(bytes) {
        assert_eq!(ending.whole_bytes + ending.torn_bytes, bytes.len() as u64);
        let (again, _) = State::read(state.lines().as_bytes()).expect("what was written can be read");
        assert_eq!(again.episodes, state.episodes);
        assert_eq!(again.quiets, state.quiets);
        assert_eq!(again.calibrations, state.calibrations);
    }
    let (mut rows, mut now) = (Rows::default(), 0);
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1..) {
        if let Some(Ok(record)) = rows.line(line, number) {
            assert!(record.ts >= now);
            now = record.ts;
        }
    }
}

const SIGMA: &str = "title: Odd port\nname: odd\nlevel: high\ntags: [attack.t1046]\nlogsource: {product: zeek, service: conn}\ndetection:\n  s:\n    \
id.resp_p|gte: 80\n    conn_state: [S0, 'R*J']\n  filter_a:\n    src_ip|cidr: 10.9.0.0/16\n  filter_b:\n    - history|re: '^S'\n    - service: null\n  \
condition: s and not 1 of filter_*\n---\ntitle: Many\ncorrelation:\n  type: value_count\n  rules: [odd]\n  group-by: [src_ip]\n  timespan: 5m\n  \
condition: {field: dst_port, gte: 2}\n";

/// Rules as they should be.
#[must_use]
pub fn sigma_seeds() -> Vec<Vec<u8>> {
    let temporal = "title: a\nname: a\nlogsource: {category: dns}\ndetection: {s: {query|contains|all: [x, y]}, condition: all of them}\n---\ntitle: b\nname: b\n\
logsource: {category: proxy}\ndetection: {s: {c-uri|endswith|cased: login}, condition: s}\n---\ntitle: c\ncorrelation: {type: temporal, rules: [a, b], timespan: 1h, generate: true}\n";
    let suricata = "title: e\nlogsource: {product: suricata}\ndetection: {s: {alert.severity|lt: 3, alert.signature|startswith: 'ET '}, condition: s}\n";
    [SIGMA, temporal, suricata].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Patterns as they should be.
#[must_use]
pub fn pattern_seeds() -> Vec<Vec<u8>> {
    [
        "flow(conn_state = S0) times 3 then flow(conn_state = SF and orig_bytes > 10) within 5m without dns(query endswith '.local') by src_ip severity high",
        "n: any within 1s",
        "alert(kind = vertical-scan) then alert(kind in (brute-force, 10.0.0.0/8)) within 1h by entity",
        "http(not (uri matches '^/a' or method != GET) and host exists) within 30s without any",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A store and logs as they should be.
#[must_use]
pub fn alerts_seeds() -> Vec<Vec<u8>> {
    [
        concat!(
            r#"{"v":1,"type":"episode","more":true,"body":{"id":"00000000002a","kind":"k","entity":"e","severity":"low","score":0.5,"technique":null,"method":"","peer":null,"port":1,"features":[{"name":"n","seen":1.0,"expected":2.0}],"range":{"first":"1","last":"2","first_ts":"3","last_ts":"4"},"proof":null,"first_ts":"3","last_ts":"4","count":1,"group":"other","told":null}}"#,
            "\n",
            r#"{"v":1,"type":"held","body":{"day":3,"group":"other","hold":"budget","count":"4"}}"#,
            "\n",
            r#"{"v":1,"type":"action","body":{"id":"00000000002a","status":"acknowledged","at_ts":"5"}}"#,
            "\n",
            r#"{"v":1,"type":"quiet","body":{"number":1,"why":"maintenance","entity":"10.0.0.0/8","kind":null,"from_ts":"0","until_ts":"9","up_to":"high"}}"#,
            "\n",
            r#"{"v":1,"type":"calibration","body":{"kind":"k","entity":null,"required":0.75,"episode":"00000000002a"}}"#,
            "\n"
        ),
        "#separator \\x09\n#path\tdns\n#fields\tts\tid.orig_h\tquery\n1.5\t10.0.0.1\texample.com\n",
        "{\"timestamp\":\"2017-04-07T22:24:38.251547+0100\",\"event_type\":\"dns\",\"dns\":{\"queries\":[{\"rrname\":\"a\"}]}}\n",
        "{\"ts\":1.5,\"uri\":\"/x\"}\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
