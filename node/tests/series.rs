//! `tidegate detect --kind series`: what it says, that its scores are those of the detectors, and how it takes bad input.

mod common;

use common::{Running, command, ends, fails, folder, json};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use tidegate_anomaly::{SeriesDetector, SeriesOptions};
use tidegate_regime::{SegmentOptions, Segments};

/// A load that swings with the hour, with noise; odd in rows 700 and 1,400.
fn load(row: u64, seed: u64) -> f64 {
    let word = (row + seed * 100_000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let noise = word as f64 / (1u64 << 24) as f64;
    let hour = (row / 12 % 24) as f64;
    let odd = if [700, 1_400].contains(&row) { 60.0 } else { 0.0 };
    20.0 + hour + noise + odd
}

fn time(row: u64) -> String {
    let (day, hour, minute) = (1 + row / 288, row / 12 % 24, row % 12 * 5);
    format!("2024-03-{day:02} {hour:02}:{minute:02}:00")
}

fn seconds(row: u64) -> i64 {
    1_709_251_200 + row as i64 * 300
}

const ROWS: u64 = 1_800;

/// One series, as benchmarks write them.
fn plain(rows: u64) -> String {
    let row = |row| format!("{},{}\n", time(row), load(row, 1));
    format!("timestamp,value\n{}", (0..rows).map(row).collect::<String>())
}

/// Fields of the score table, a row each, without its header.
fn table(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip(1);
    rows.map(|row| row.split(',').map(str::to_owned).collect()).collect()
}

const SERIES: usize = 2;
const VALUE: usize = 3;
const STATE: usize = 4;
const SCORE: usize = 5;
const ALERT: usize = 7;

#[test]
fn scores_are_those_of_the_detector_to_the_bit_and_a_cut_changes_none_before_it() {
    let folder = folder();
    std::fs::write(folder.path().join("load.csv"), plain(ROWS)).unwrap();
    let (told, notes) = ends(folder.path(), "detect load.csv --kind series --scores all.csv", 1);
    assert!(told.contains("series-anomaly") && told.contains("by load"), "{told}");
    assert!(notes.contains("time: timestamp; values: value"), "{notes}");
    assert!(notes.contains("1,650 values judged, 150 that came while they learnt"), "{notes}");
    let all = table(&folder.path().join("all.csv"));
    assert_eq!(all.len() as u64, ROWS);
    let mut detector = SeriesDetector::new(SeriesOptions::default()).unwrap();
    for (row, fields) in (0..).zip(&all) {
        let verdict = detector.push(seconds(row), load(row, 1));
        assert_eq!(fields[SCORE].parse::<f64>().unwrap().to_bits(), verdict.score.to_bits(), "{fields:?}");
        assert_eq!(fields[8].parse::<f64>().unwrap().to_bits(), verdict.evidence.to_bits(), "{fields:?}");
        assert_eq!(fields[9].parse::<f64>().unwrap().to_bits(), verdict.expected.to_bits(), "{fields:?}");
        assert_eq!(fields[STATE], if row < 150 { "learning" } else { "judged" });
        assert_eq!(fields[ALERT] == "1", row >= 150 && verdict.score >= 1.25, "{fields:?}");
    }
    assert!([700, 1_400].iter().all(|row| all[*row][ALERT] == "1"));
    for cut in [1, 150, 151, 701, 1_402] {
        std::fs::write(folder.path().join("load.csv"), plain(cut)).unwrap();
        let (said, _) = runs(folder.path(), "detect load.csv --kind series --scores cut.csv --json");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(table(&folder.path().join("cut.csv")), all[..cut as usize], "cut at {cut}");
        assert_eq!(said["series"]["learning"].as_u64(), Some(u64::from(cut <= 150)), "{said}");
    }
}

#[test]
fn many_series_of_one_file_are_judged_apart_kept_and_judged_again() {
    let folder = folder();
    let mut text = "when,who,cpu,mem\n".to_owned();
    for row in 0..ROWS {
        for (seed, who) in [(1, "web"), (2, "db")] {
            text +=
                &format!("{},{who},{},{}\n", seconds(row), load(row, seed), 5.0 + load(row / 2, seed + 2));
        }
    }
    std::fs::write(folder.path().join("hosts.csv"), &text).unwrap();
    let map = "--kind series --map time=when,key=who,value=cpu,value=mem";
    let line = format!("detect hosts.csv {map} --scores scores.csv --alerts watch --one-in 5000 --json");
    let said = json(folder.path(), &line, 1);
    assert_eq!((said["series"]["count"].as_u64(), said["series"]["learning"].as_u64()), (Some(4), Some(0)));
    assert_eq!(said["judged"].as_u64(), Some(4 * (ROWS - 150)));
    let scores = table(&folder.path().join("scores.csv"));
    for (seed, column) in [(1, "web/cpu"), (2, "db/cpu")] {
        let mut detector = SeriesDetector::new(SeriesOptions::default()).unwrap();
        let rows = scores.iter().filter(|row| row[SERIES] == column);
        for (row, fields) in (0..).zip(rows) {
            let score = detector.push(seconds(row), load(row, seed)).score;
            assert_eq!(fields[SCORE].parse::<f64>().unwrap().to_bits(), score.to_bits(), "{fields:?}");
            // A rate of one in 5,000 is asked for.
            let chance: f64 = fields[6].parse().unwrap();
            assert_eq!(fields[ALERT] == "1", score > 0.0 && chance <= 0.0002, "{fields:?}");
        }
    }
    // The same rows as JSON lines give the same scores.
    let lines: String = text
        .lines()
        .skip(1)
        .map(|row| {
            let fields: Vec<&str> = row.split(',').collect();
            let [when, who, cpu, mem] = *fields else { panic!("{row}") };
            format!("{{\"when\":{when},\"who\":\"{who}\",\"cpu\":\"{cpu}\",\"mem\":\"{mem}\"}}\n")
        })
        .collect();
    std::fs::write(folder.path().join("hosts.jsonl"), lines).unwrap();
    ends(folder.path(), &format!("detect hosts.jsonl {map} --scores lines.csv --one-in 5000"), 1);
    let bare = |rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
        rows.into_iter().map(|row| row[1..].to_vec()).collect()
    };
    assert_eq!(bare(table(&folder.path().join("lines.csv"))), bare(scores));

    let listed = json(folder.path(), "alert list --alerts watch --json", 0);
    let alerts = listed["alerts"].as_array().unwrap();
    assert!(alerts.iter().all(|alert| alert["kind"] == "series-anomaly"), "{listed}");
    let spike = alerts.iter().find(|alert| alert["entity"] == "db/cpu").expect("its spikes are told");
    let value = spike["features"].as_array().unwrap().iter().find(|one| one["name"] == "value").unwrap();
    assert!(value["seen"].as_f64() > value["expected"].as_f64(), "{spike}");
    assert!(spike["score"].as_f64() >= Some(0.8), "{spike}");
    for alert in alerts {
        let replay = format!("alert replay {} --alerts watch --json", alert["id"].as_str().unwrap());
        let again = json(folder.path(), &replay, 0);
        assert_eq!((again["same"].as_bool(), &again["score"]), (Some(true), &alert["score"]), "{alert}");
    }
    // Judged a second time nothing is added; under another rate it is another input.
    let (_, notes) = ends(folder.path(), &format!("detect hosts.csv {map} --alerts watch --one-in 5000"), 1);
    assert!(notes.contains("in the store already"), "{notes}");
    let (told, _) = ends(folder.path(), "alert list --alerts watch", 0);
    assert!(told.contains("db/cpu"), "{told}");
}

/// Levels of ten pieces of sixty rows, and the noise around them.
fn steps(row: u64) -> f64 {
    let piece = row / 60;
    let width = if piece.is_multiple_of(4) { 6.0 } else { 1.0 };
    (piece % 2) as f64 * 30.0 + (load(row, 9) % 1.0) * width
}

#[test]
fn change_points_are_told_with_what_changed() {
    let folder = folder();
    let rows: String = (0..600).map(|row| format!("{},{}\n", seconds(row), steps(row))).collect();
    std::fs::write(folder.path().join("level.csv"), rows).unwrap();
    let line = "detect level.csv --kind series --changes --change-points points.csv --alerts watch --json";
    let said = json(folder.path(), line, 1);
    let mut segments = Segments::new(SegmentOptions::default()).unwrap();
    let wanted: Vec<_> = (0..600).filter_map(|row| segments.push(&[steps(row)])).collect();
    let points = table(&folder.path().join("points.csv"));
    assert!(wanted.len() >= 8 && points.len() == wanted.len(), "{points:?}");
    assert_eq!(said["series"]["changes"].as_u64(), Some(wanted.len() as u64));
    for (point, change) in points.iter().zip(&wanted) {
        let number = |at: usize| point[at].parse::<f64>().unwrap();
        assert_eq!(
            (point[0].as_str(), number(2), number(3)),
            ("level", change.index as f64, change.detected_at as f64)
        );
        // The file has no header: line 1 is the first row.
        assert_eq!((number(4), number(6)), (change.index as f64 + 1.0, change.detected_at as f64 + 1.0));
        assert_eq!((number(9).to_bits(), number(10)), (change.gain.to_bits(), 13.0));
        assert!(point[11].contains("mean") && (0.8..1.0).contains(&number(8)), "{point:?}");
        assert!((number(13) - number(12)).abs() > 20.0, "{point:?}");
    }
    let listed = json(folder.path(), "alert list --alerts watch --json", 0);
    let alerts = listed["alerts"].as_array().unwrap();
    let change = alerts.iter().find(|alert| alert["kind"] == "change-point").expect("one is told");
    let replay = format!("alert replay {} --alerts watch --json", change["id"].as_str().unwrap());
    assert_eq!(json(folder.path(), &replay, 0)["same"], true);
    fails(folder.path(), "detect level.csv --kind series --change-points x.csv", 2, &["--changes"]);
    let one = "detect level.csv --kind series --changes --scores x.csv --change-points x.csv";
    fails(folder.path(), one, 2, &["two tables"]);
    fails(folder.path(), "detect level.csv --kind edges --changes", 2, &["--kind series"]);
    fails(folder.path(), "detect level.csv --changes", 2, &["--changes is for --kind"]);
    fails(
        folder.path(),
        "detect level.csv --kind series --changes --change-points level.csv",
        2,
        &["is an input"],
    );
}

#[test]
fn what_comes_through_a_pipe_is_told_as_it_comes() {
    let folder = folder();
    let mut running = Running::start(folder.path(), "detect - --kind series --output jsonl");
    let mut pipe = running.stdin();
    // The pipe stays open: what is told is told before its end.
    pipe.write_all(plain(702).as_bytes()).unwrap();
    pipe.flush().unwrap();
    let alert = loop {
        let alert = running.json();
        if alert["range"]["last"] == "702" {
            break alert;
        }
    };
    assert_eq!((&alert["entity"], &alert["file"]), (&"stdin".into(), &"stdin".into()));
    assert!(alert["unproven"].as_str().unwrap().contains("pipe"), "{alert}");
    // Half a line is no row when the user wants no more.
    pipe.write_all(b"2024-03-03 10:30:00,1").unwrap();
    pipe.flush().unwrap();
    running.signal("-INT");
    let (_, notes, code) = running.rest();
    assert_eq!(code, Some(1), "{notes}");
    assert!(notes.contains("in 702 rows") && !notes.contains("error"), "{notes}");
    drop(pipe);

    let mut edges = Running::start(folder.path(), "detect - --kind edges");
    edges.stdin().write_all(b"time,from,to\n1,a,b\n").unwrap();
    let (_, notes, code) = edges.rest();
    assert_eq!((code, notes.contains("0 alerts in 1 row")), (Some(0), true), "{notes}");
    // Lines as Windows ends them, in quotes.
    let mut quoted = Running::start(folder.path(), "detect - --kind series");
    quoted.stdin().write_all(b"\"time\",\"value\"\r\n1,2\r\n2,3\r\n").unwrap();
    let (_, notes, code) = quoted.rest();
    assert_eq!((code, notes.contains("0 alerts in 2 rows")), (Some(0), true), "{notes}");
    let empty = Running::start(folder.path(), "detect - --kind series");
    let (_, notes, code) = empty.rest();
    assert!(code == Some(3) && notes.contains("no row, not even a header"), "{code:?} {notes}");
}

/// What it says on either side; whether anything is found does not matter.
#[track_caller]
fn runs(folder: &Path, line: &str) -> (String, String) {
    let output = command(folder, line).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 1)), "tidegate {line}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// What the command says of a file of these bytes, as JSON, and the scores.
#[track_caller]
fn said(bytes: &[u8]) -> (Value, Vec<Vec<String>>) {
    let folder = folder();
    std::fs::write(folder.path().join("odd.csv"), bytes).unwrap();
    let line = "detect odd.csv --kind series --changes --scores scores.csv --json";
    let said: Value = serde_json::from_str(&runs(folder.path(), line).0).unwrap();
    let scores = table(&folder.path().join("scores.csv"));
    let series = &said["series"];
    let count = |name: &str| series[name].as_u64().unwrap();
    // Nothing vanishes: each value of an accepted row is judged, learnt from or missing.
    let values = said["judged"].as_u64().unwrap() + count("learnt") + count("missing");
    assert_eq!((values, scores.len() as u64), (said["accepted"].as_u64().unwrap(), values), "{said}");
    assert_eq!(
        said["units"].as_u64(),
        Some(said["accepted"].as_u64().unwrap() + said["faults"].as_u64().unwrap())
    );
    (said, scores)
}

#[test]
fn bad_input_is_counted_with_its_line_and_never_ends_the_rest() {
    // Gaps in time, also of years, are nothing to be told.
    let gap = |row: u64| if row < 900 { row } else { row + 1_000_000 };
    let text: String = (0..ROWS).map(|row| format!("{},{}\n", 300 * gap(row), load(row % 600, 1))).collect();
    let (told, _) = said(text.as_bytes());
    assert_eq!((told["series"]["disordered"].as_u64(), told["faults"].as_u64()), (Some(0), Some(0)));

    // What is no number in a cell makes the row none; what is missing or infinite is no value.
    let mut text = "ts,value\n".to_owned();
    for row in 0..400 {
        let value = match row {
            200 => String::new(),
            201 => "NaN".to_owned(),
            202 => "inf".to_owned(),
            203 => "-Infinity".to_owned(),
            204 => "1e999".to_owned(),
            205 => "many".to_owned(),
            206 => "1,5".to_owned(),
            _ => load(row, 1).to_string(),
        };
        text += &format!("{},{value}\n", seconds(row));
    }
    let (told, scores) = said(text.as_bytes());
    assert_eq!((told["series"]["missing"].as_u64(), told["faults"].as_u64()), (Some(5), Some(2)));
    assert!(scores[200..205].iter().all(|row| row[STATE] == "missing" && row[VALUE].is_empty()));
    let folder = folder();
    std::fs::write(folder.path().join("odd.csv"), &text).unwrap();
    let (_, notes) = runs(folder.path(), "detect odd.csv --kind series");
    assert!(notes.contains("2 of 400 units cannot be read") && notes.contains("line 207"), "{notes}");
    assert!(notes.contains("5 values are missing or not finite"), "{notes}");
    fails(
        folder.path(),
        "detect odd.csv --kind series --strict",
        3,
        &["line 207", "`many` in column `value`"],
    );

    // A constant says nothing; its end is an alert, and so is a jump of 10^9, which does not blind for the next.
    let text: String = (0..600).map(|row| format!("{}\n", if row == 500 { 8 } else { 7 })).collect();
    let (told, scores) = said(text.as_bytes());
    assert!(scores[..500].iter().all(|row| row[SCORE] == "0") && scores[500][ALERT] == "1", "{told}");
    let jump = |row: u64| match row {
        1_000 => 1e9,
        1_500 => 90.0,
        _ => load(row % 600, 1),
    };
    let text: String = (0..ROWS).map(|row| format!("{}\n", jump(row))).collect();
    let (_, scores) = said(text.as_bytes());
    assert!([1_000, 1_500].iter().all(|row| scores[*row][ALERT] == "1"));

    // A series that begins with its anomaly learns it, and is not told of it.
    let start = |row: u64| load(row % 600, 1) + if row < 10 { 500.0 } else { 0.0 };
    let text: String = (0..600).map(|row| format!("{}\n", start(row))).collect();
    let (_, scores) = said(text.as_bytes());
    assert!(scores[..150].iter().all(|row| row[STATE] == "learning" && row[ALERT] == "0"));

    // Times that go back or stand still: rows count as they stand.
    let back = |row: u64| if row == 300 { 100 } else { row - row % 2 };
    let text: String = (0..600).map(|row| format!("{},{}\n", seconds(back(row)), load(row, 1))).collect();
    let (told, scores) = said(format!("ts,value\n{text}").as_bytes());
    let series = &told["series"];
    assert_eq!((series["disordered"].as_u64(), series["repeated"].as_u64()), (Some(1), Some(299)), "{told}");
    let mut detector = SeriesDetector::new(SeriesOptions::default()).unwrap();
    for (row, fields) in (0..).zip(&scores) {
        let score = detector.push(seconds(back(row)), load(row, 1)).score;
        assert_eq!(fields[SCORE].parse::<f64>().unwrap().to_bits(), score.to_bits());
    }

    // A huge line is one that cannot be read, wherever it stands; so is one that is no text.
    let huge = "9".repeat(200_000);
    let text = format!("{huge}\nts,value\n1,2\n{huge},1\n3,4\n");
    let (told, _) = said(text.as_bytes());
    assert_eq!((told["accepted"].as_u64(), told["faults"].as_u64()), (Some(2), Some(2)), "{told}");
    let (told, _) = said(b"ts,value\n1,2\n\xff\xfe,3\n2,4,5\n");
    assert_eq!((told["accepted"].as_u64(), told["faults"].as_u64()), (Some(1), Some(2)), "{told}");
}

#[test]
fn files_that_are_no_series_are_told_so() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("empty.csv", "");
    write("words.csv", "who,what\nme,that\n");
    write("mixed.csv", "2024-01-01,web,5\n2024-01-02,web,6\n");
    fails(folder.path(), "detect empty.csv --kind series", 3, &["no row, not even a header"]);
    fails(folder.path(), "detect words.csv --kind series", 3, &["no column holds numbers", "who, what"]);
    fails(folder.path(), "detect mixed.csv --kind series", 3, &["--no-header", "--map"]);
    fails(folder.path(), "detect gone.csv --kind series", 3, &["gone.csv"]);
    fails(folder.path(), "detect empty.csv --kind series --map entity=x", 3, &["no row"]);
    fails(folder.path(), "detect words.csv --kind series --map value=load", 3, &["no column `load`"]);
    fails(folder.path(), "detect words.csv --kind records --map value=what", 2, &["have no `value`"]);
    let (told, notes) = ends(folder.path(), "detect mixed.csv --kind series --no-header --map key=2", 0);
    assert!(told.contains("nothing found") && notes.contains("still learning"), "{told}{notes}");
    // Two files are two series, by their names.
    write("a.csv", &plain(800));
    write("b.csv", &plain(800));
    fails(folder.path(), "detect a.csv --kind series --features value=count", 3, &["no features"]);
    let (told, _) = ends(folder.path(), "detect a.csv b.csv --kind series --output jsonl", 1);
    assert!(told.contains("\"entity\":\"a\"") && told.contains("\"entity\":\"b\""), "{told}");
}

/// The public data, if it is there.
fn data(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TIDEGATE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let folder = root.join(part);
    if !folder.is_dir() {
        eprintln!("NOT RUN: no {part} under {}; set TIDEGATE_DATA", root.display());
        return None;
    }
    Some(folder)
}

/// Files below a folder whose name ends so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn the_public_series_score_as_on_the_yardstick() {
    let Some(nab) = data("nab") else { return };
    let folder = folder();
    for path in files(&nab, ".csv.gz") {
        let mut text = String::new();
        let file = std::fs::File::open(&path).unwrap();
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file), &mut text).unwrap();
        std::fs::copy(&path, folder.path().join("series.csv.gz")).unwrap();
        runs(folder.path(), "detect series.csv.gz --kind series --scores scores.csv --quiet");
        let mut detector = SeriesDetector::new(SeriesOptions::default()).unwrap();
        let scores = table(&folder.path().join("scores.csv"));
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(scores.len(), rows.len(), "{}", path.display());
        for (row, fields) in rows.iter().zip(&scores) {
            let (time, value) = row.split_once(',').unwrap();
            let time: jiff::civil::DateTime = time.parse().unwrap();
            let seconds = time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
            let score = detector.push(seconds, value.trim().parse().unwrap()).score;
            assert_eq!(fields[SCORE], score.to_string(), "{}: {row}", path.display());
        }
    }
}

#[test]
fn the_public_change_points_are_those_of_the_yardstick() {
    let Some(tcpd) = data("tcpd") else { return };
    let folder = folder();
    for path in files(&tcpd, ".json") {
        let series: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let Some(count) = series["n_obs"].as_u64() else { continue };
        let raw: Vec<&Vec<Value>> =
            series["series"].as_array().unwrap().iter().map(|one| one["raw"].as_array().unwrap()).collect();
        let options = SegmentOptions { dimensions: raw.len(), ..SegmentOptions::default() };
        let mut segments = Segments::new(options).unwrap();
        let (mut wanted, mut text) = (Vec::new(), String::new());
        let names: Vec<String> = (0..raw.len()).map(|at| format!("x{at}")).collect();
        text += &format!("{}\n", names.join(","));
        for row in 0..count as usize {
            let values: Vec<f64> = raw.iter().map(|one| one[row].as_f64().unwrap_or(f64::NAN)).collect();
            wanted.extend(segments.push(&values).map(|change| (change.index, change.detected_at)));
            let fields: Vec<String> = values.iter().map(f64::to_string).collect();
            text += &format!("{}\n", fields.join(","));
        }
        std::fs::write(folder.path().join("series.csv"), text).unwrap();
        let line = "detect series.csv --kind series --changes=together --change-points points.csv --quiet";
        runs(folder.path(), line);
        let points = table(&folder.path().join("points.csv"));
        let mut found: Vec<(u64, u64)> =
            points.iter().map(|row| (row[2].parse().unwrap(), row[3].parse().unwrap())).collect();
        // A row for each column.
        found.dedup();
        assert_eq!(found, wanted, "{}", path.display());
    }
}
