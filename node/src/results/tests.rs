use super::*;
use tidegate_engine::{BarWords, Cause, name_hash, slot_of};

const SECOND: u64 = 1_000_000_000;

fn infos() -> Vec<StreamInfo> {
    let info = |id, name: &str, kind, columns: &[&str]| StreamInfo {
        id,
        name: name.to_owned(),
        kind,
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        definition: String::new(),
    };
    vec![
        info(0, "bars.1s", StreamKind::Bars, &[]),
        info(1, "anomaly.1s", StreamKind::Indicators, &["state", "score"]),
    ]
}

fn table() -> Arc<Table> {
    Arc::new(Table::of(
        &infos(),
        &HashMap::from([("anomaly.1s".to_owned(), Judged::Anomaly { threshold: 2.0 })]),
    ))
}

fn rules(patterns: &[&str]) -> Rules {
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let ui = crate::render::Ui::new(crate::render::Color::Never, true);
    crate::rules::load(&[], &patterns, &table().streams, &ui)
        .unwrap_or_else(|failure| panic!("{:#}", failure.error))
}

fn output(stream: u16, key: &str, second: u64) -> Output {
    let name = name_hash(key.as_bytes());
    Output {
        name,
        slot: slot_of(name),
        stream,
        sequence: second,
        ts: second * SECOND,
        state: BarState::Final as u8,
        cause: Cause::Watermark as u8,
        ..Output::default()
    }
}

fn bar(key: &str, second: u64, close: i64) -> (u16, &str, Output) {
    let words = BarWords { close: close * 1_000_000_000, trades: 1, ..BarWords::default() }.to_words();
    (0, key, Output { kind: output_kind::BAR, words, ..output(0, key, second) })
}

fn anomaly(key: &str, second: u64, score: f64) -> (u16, &str, Output) {
    let mut row = Output { kind: output_kind::VALUES, count: 2, ..output(1, key, second) };
    (row.words[0], row.words[1]) = (2.0f64.to_bits(), score.to_bits());
    (1, key, row)
}

/// What is found when the rows come in this order, the watermark moving as `told` says behind each of them.
fn run(
    judge: &mut RowJudge,
    rows: &[(u16, &str, Output)],
    told: impl Fn(usize) -> Option<u64>,
) -> Vec<FoundRow> {
    let mut found = Vec::new();
    for (at, (place, key, row)) in rows.iter().enumerate() {
        judge.take(*place, &Arc::from(*key), row, &mut |one| found.push(one));
        if let Some(watermark) = told(at) {
            judge.complete(watermark, &mut |one| found.push(one));
        }
    }
    judge.complete(u64::MAX, &mut |one| found.push(one));
    found
}

const CRASH: &str = "crash: anomaly.1s(score >= 3) then bars.1s(close < 10) within 5s";
const AFTER: &str = "after: alert(kind = anomaly) then bars.1s(close > 50) within 3s";

/// A hundred seconds of three keys, in their order of time.
fn hundred() -> Vec<(u16, &'static str, Output)> {
    let mut rows = Vec::new();
    for second in 1..100u64 {
        for (at, key) in ["A", "B", "C"].into_iter().enumerate() {
            let drawn = (second * 7_919 + at as u64 * 104_729) % 101;
            rows.push(bar(key, second, drawn as i64));
            rows.push(anomaly(key, second, (drawn * 31 % 101) as f64 / 25.0));
        }
    }
    rows
}

#[test]
fn what_is_found_does_not_depend_on_how_rows_come_and_watermarks_move() {
    let rules = rules(&[CRASH, AFTER]);
    let judge = || RowJudge::new(table(), &rules, "input".to_owned(), true);
    let findings = |found: Vec<FoundRow>| found.into_iter().map(|one| one.finding).collect::<Vec<_>>();
    let rows = hundred();
    let expected = findings(run(&mut judge(), &rows, |at| (at % 6 == 5).then_some(rows[at].2.ts)));
    let kinds: std::collections::BTreeSet<&str> = expected.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["anomaly", "pattern:after", "pattern:crash"]);
    // Everything at once, backwards; stream by stream; key by key, with a watermark now and then.
    let mut backwards = rows.clone();
    backwards.reverse();
    assert_eq!(findings(run(&mut judge(), &backwards, |_| None)), expected);
    let mut by_stream = rows.clone();
    by_stream.sort_by_key(|(place, _, _)| *place);
    assert_eq!(findings(run(&mut judge(), &by_stream, |_| None)), expected);
    let mut blocks = rows.clone();
    blocks.sort_by_key(|(place, key, row)| (row.ts / (10 * SECOND), (*key).to_owned(), *place));
    let last = |at: usize| {
        let block = blocks[at].2.ts / (10 * SECOND);
        let ends = blocks.get(at + 1).is_none_or(|(_, _, next)| next.ts / (10 * SECOND) > block);
        ends.then_some((block + 1) * 10 * SECOND - 1)
    };
    assert_eq!(findings(run(&mut judge(), &blocks, last)), expected);
    // Rows of what happened before are no rows.
    let amended: Vec<_> = rows
        .iter()
        .map(|(place, key, row)| (*place, *key, Output { state: BarState::Amended as u8, ..*row }))
        .collect();
    assert!(run(&mut judge(), &amended, |_| None).is_empty());
}

#[test]
fn a_row_waits_for_the_watermark_and_no_longer() {
    let rules = rules(&[CRASH]);
    let mut judge = RowJudge::new(table(), &rules, String::new(), false);
    assert_eq!(judge.wanted().collect::<Vec<_>>(), [0, 1]);
    let mut found = Vec::new();
    let mut take = |judge: &mut RowJudge, (place, key, row): (u16, &str, Output)| {
        judge.take(place, &Arc::from(key), &row, &mut |one| found.push(one));
    };
    take(&mut judge, bar("A", 2, 5));
    take(&mut judge, anomaly("A", 1, 3.0));
    assert_eq!(judge.rows(), 0);
    judge.complete(SECOND, &mut |_| panic!("nothing is met yet"));
    assert_eq!(judge.rows(), 1);
    let mut told = 0;
    judge.complete(2 * SECOND, &mut |one| {
        told += 1;
        assert_eq!((one.finding.entity.as_str(), one.finding.range.first_ts), ("A", SECOND));
    });
    assert_eq!(told, 1);
}

#[test]
fn too_many_that_wait_are_judged_early_and_counted() {
    let rules = rules(&[CRASH]);
    let mut judge = RowJudge::new(table(), &rules, String::new(), false);
    for second in 1..=WAITING_MAX as u64 + 10 {
        judge.take(0, &Arc::from("A"), &bar("A", second, 5).2, &mut |_| {});
    }
    assert_eq!((judge.early(), judge.rows(), judge.waiting.len()), (10, 10, WAITING_MAX));
}

#[test]
fn the_rows_behind_a_match_show_it_again_from_nothing() {
    let rules = rules(&[CRASH, AFTER]);
    let mut judge = RowJudge::new(table(), &rules, String::new(), false).keeping(&rules);
    let found = run(&mut judge, &hundred(), |_| None);
    let (mut shown, mut not) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    for one in found {
        let Some(RowsBehind { behind, options, rules: sources }) = one.behind else {
            let why = one.finding.unproven.as_deref();
            match one.finding.kind.as_str() {
                "pattern:after" => {
                    // The row that completes it is there, the alert that began it is not.
                    assert!(
                        why.unwrap().contains("alerts of streams") || why.unwrap().contains("repeats"),
                        "{why:?}"
                    );
                }
                // What an alert has rows of already.
                _ => {
                    assert!(seen.contains(&one.finding.entity) && why.unwrap().contains("repeats"), "{why:?}")
                }
            }
            not += 1;
            continue;
        };
        seen.insert(one.finding.entity.clone());
        shown += 1;
        assert_eq!((sources.len(), options["what"].as_str()), (2, "rows"));
        let streams = crate::rules::streams_of(&options["streams"]).unwrap();
        let read = Behind::read(&behind.bytes()).unwrap();
        assert_eq!((&read, read.kind.as_str()), (&behind, "pattern:crash"));
        let again = read.judge(rules.set.clone(), &streams).unwrap().unwrap();
        assert_eq!((again.ts, again.score.to_bits()), (one.finding.ts, one.finding.score.to_bits()));
        // Without the rows of its first second it is another thing, or nothing.
        let mut text: serde_json::Value = serde_json::from_slice(&behind.bytes()).unwrap();
        let rows = text["rows"].as_array_mut().unwrap();
        let first = rows[0]["ts"].clone();
        rows.retain(|row| row["ts"] != first);
        let less = Behind::read(text.to_string().as_bytes()).unwrap();
        assert_eq!(less.judge(rules.set.clone(), &streams).unwrap(), None);
    }
    assert!(shown == 3 && not > 5, "{shown} and {not}");
    for broken in [&b"{}"[..], b"", br#"{"v":9,"kind":"a","key":"b","seen":1,"rows":[]}"#] {
        assert!(Behind::read(broken).is_err());
    }
}

#[test]
fn what_rests_on_more_than_is_kept_says_so() {
    let rules = rules(&["long: anomaly.1s(score >= 3) then bars.1s(close < 10) within 1h"]);
    let mut judge = RowJudge::new(table(), &rules, String::new(), false).keeping(&rules);
    let mut rows = vec![anomaly("A", 1, 3.0)];
    rows.extend((2..300).map(|second| bar("A", second, 50)));
    rows.push(bar("A", 300, 5));
    let found = run(&mut judge, &rows, |_| None);
    assert_eq!(found.len(), 1);
    let why = found[0].finding.unproven.as_deref().unwrap();
    assert!(found[0].behind.is_none() && why.contains("120 rows"), "{why}");
}
