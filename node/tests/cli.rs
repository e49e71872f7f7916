//! The real binary on small inputs: what each command answers, and how it fails.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Runs a command that must end with `code`; returns stdout and stderr.
#[track_caller]
fn ends(folder: &Path, line: &str, code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).args(line.split_whitespace()).env("XDG_DATA_HOME", folder.join("at-home"));
    let output = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "tidegate {line}\n{stdout}\n{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "colour without a terminal");
    (stdout, stderr)
}

#[track_caller]
fn json(folder: &Path, line: &str) -> Value {
    serde_json::from_str(&ends(folder, line, 0).0).expect("one JSON value")
}

/// A command that must fail with `code` and say each of `words`.
#[track_caller]
fn fails(folder: &Path, line: &str, code: i32, words: &[&str]) {
    let (_, stderr) = ends(folder, line, code);
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

const TRADES: &str = "ts_event,symbol,price,size,side
1767623400100000000,AAPL,150.25,100,buy
1767623400600000000,MSFT,300.5,10,sell
1767623401200000000,AAPL,150.50,50,buy
1767623402000000000,AAPL,150.00,25,sell
1767623402500000000,AAPL,nan,25,sell
";

fn trades() -> tempfile::TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("t.csv"), TRADES).unwrap();
    folder
}

/// The trades under gzip, without the last bytes.
fn cut() -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(TRADES.as_bytes()).unwrap();
    let mut bytes = gz.finish().unwrap();
    bytes.truncate(bytes.len() - 6);
    bytes
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let folder = folder();
    let (help, _) = ends(folder.path(), "--help", 0);
    assert!(help.contains("Exit codes") && help.contains("tidegate demo"), "{help}");
    for command in
        ["inspect", "generate", "record", "replay", "verify", "demo", "serve", "publish", "subscribe"]
    {
        let (help, _) = ends(folder.path(), &format!("{command} --help"), 0);
        assert!(help.contains("Example"), "no example: {help}");
    }
    ends(folder.path(), "--version", 0);
}

#[test]
fn mistakes_on_the_command_line_are_usage_errors() {
    let folder = trades();
    let path = folder.path();
    fails(path, "repaly x", 2, &["replay"]);
    fails(path, "replay", 2, &["FILE"]);
    fails(path, "replay t.csv --bras 1s", 2, &["--bars"]);
    fails(path, "replay t.csv --bars 1x", 2, &["1x", "250ms, 1s", "1000t"]);
    fails(path, "replay t.csv --ind rsy:14", 2, &["rsy", "rsi:N"]);
    fails(path, "replay t.csv --ind rsi:0", 2, &["100000"]);
    fails(path, "replay t.csv --hosts 10t", 2, &["10t"]);
    fails(path, "replay t.csv --bars 1s,1s", 2, &["bars.1s", "twice"]);
    fails(path, "replay t.csv --speed fast", 2, &["fast", "max"]);
    fails(path, "replay t.csv --late never", 2, &["amend, side, drop"]);
    fails(path, "replay t.csv --from yesterday", 2, &["2026-01-05"]);
    fails(path, "replay t.csv --shards 0", 2, &["1..=256"]);
    fails(path, "replay t.csv --output jsonl", 2, &["--out"]);
    fails(path, "inspect t.csv --map when=ts", 2, &["ts, symbol, price, size or side"]);
    fails(path, "inspect t.csv --format cvs", 2, &["csv, parquet"]);
    fails(path, "generate market --out m.xyz", 2, &[".tgc, .csv or .parquet"]);
    fails(path, "generate network --out n.csv", 2, &[".tgc"]);
    fails(path, "generate market --symbols 5000 --out m.tgc", 2, &["4096"]);
    fails(path, "record t.csv --out t.csv", 2, &["input as well"]);
}

#[test]
fn inspect_tells_what_is_there() {
    let folder = trades();
    let path = folder.path();
    let (text, _) = ends(path, "inspect t.csv", 0);
    for word in ["csv", "trade", "AAPL", "75.0 %", "bad_number", "line 6", "2026-01-05T14:30:00.1Z"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    let found = json(path, "inspect t.csv --json");
    assert_eq!((found["units"].as_u64(), found["events"].as_u64()), (Some(5), Some(4)));
    // Half of a damaged file is still reported, and so are the files beside a bad one.
    std::fs::write(path.join("cut.csv.gz"), cut()).unwrap();
    let (text, error) = ends(path, "inspect none.csv cut.csv.gz t.csv", 3);
    assert!(text.contains("cut.csv.gz") && text.contains("t.csv"), "{text}");
    assert!(error.contains("none.csv") && error.contains("damaged"), "{error}");
}

#[test]
fn bad_inputs_end_with_three_and_say_where() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("empty.csv"), "").unwrap();
    std::fs::write(path.join("columns.csv"), "a,b,c\n1,2,3\n").unwrap();
    std::fs::write(path.join("noise"), [0u8, 1, 2, 3]).unwrap();
    std::fs::write(path.join("cut.csv.gz"), cut()).unwrap();
    for command in ["inspect @", "replay @", "verify @ --shards 1", "record @ --out x.tgc"] {
        let line = |file: &str| command.replace('@', file);
        fails(path, &line("missing.csv"), 3, &["missing.csv", "No such file"]);
        fails(path, &line("empty.csv"), 3, &["empty.csv", "it is empty"]);
        fails(path, &line("columns.csv"), 3, &["columns.csv", "a, b, c", "--map"]);
        fails(path, &line("noise"), 3, &["noise", "--format"]);
        fails(path, &line("cut.csv.gz"), 3, &["cut.csv.gz", "damaged at"]);
    }
    // What came before the damage was processed.
    let (text, _) = ends(path, "replay cut.csv.gz --bars 1s --out results", 3);
    assert!(text.contains("4 of 2 names"), "{text}");
    assert!(std::fs::read_to_string(path.join("results/bars.1s.csv")).unwrap().contains("AAPL"));
    assert_eq!(json(path, "inspect x.tgc --json")["events"], 4);
}

#[test]
fn outputs_that_cannot_be_written_end_with_four() {
    let folder = trades();
    let path = folder.path();
    std::fs::write(path.join("file"), "").unwrap();
    fails(path, "replay t.csv --bars 1s --out file/x", 4, &["file/x"]);
    fails(path, "record t.csv --out none/x.tgc", 4, &["none/x.tgc"]);
    fails(path, "generate market --events 10 --out none/x.tgc", 4, &["none/x.tgc"]);
    fails(path, "generate w1 --events 10 --out none/x.csv", 4, &["none/x.csv"]);
    fails(path, "replay t.csv --digest-out none/x.digest", 4, &["none/x.digest"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_with_four() {
    let folder = trades();
    let path = folder.path();
    // `/dev/full` takes no byte. A link in the place of the file under construction leads there.
    std::fs::create_dir(path.join("r")).unwrap();
    for file in ["x.csv", "x.parquet", "x.tgc", "r/bars.1s.csv"] {
        std::os::unix::fs::symlink("/dev/full", path.join(format!("{file}.part"))).unwrap();
    }
    fails(path, "generate w1 --events 50k --out x.csv", 4, &["no space left", "x.csv"]);
    fails(path, "generate w1 --events 50k --out x.parquet", 4, &["x.parquet"]);
    fails(path, "generate w1 --events 50k --out x.tgc", 4, &["x.tgc", "No space left"]);
    fails(path, "record t.csv --out x.tgc", 4, &["x.tgc", "No space left"]);
    fails(path, "replay t.csv --bars 1s --out r", 4, &["bars.1s.csv", "no space left"]);
    for file in ["x.csv", "x.parquet", "x.tgc", "r/bars.1s.csv"] {
        assert!(!path.join(file).exists(), "{file} is not whole and has its name");
    }
}

#[test]
fn generated_inputs_are_the_same_every_time() {
    let folder = folder();
    let path = folder.path();
    let all = [("market", "tgc"), ("network", "tgc"), ("w1", "tgc"), ("market", "csv"), ("w1", "parquet")];
    for (what, ending) in all {
        let make =
            |file: &str| format!("-q generate {what} --seed 7 --events 5k --out {file}.{ending} --json");
        let made = json(path, &make("a"));
        json(path, &make("b"));
        assert_eq!(made["generated"], what);
        let bytes = |file: &str| std::fs::read(path.join(format!("{file}.{ending}"))).unwrap();
        assert!(bytes("a") == bytes("b"), "{what}.{ending} differs from run to run");
        let found = json(path, &format!("inspect a.{ending} --json"));
        assert_eq!(found["events"], made["events"], "{what}.{ending}");
    }
}

#[test]
fn record_merges_by_time_and_replays_alike() {
    let folder = trades();
    let path = folder.path();
    ends(path, "generate market --events 5k --symbols 5 --out m.tgc", 0);
    let recorded = json(path, "record t.csv m.tgc --out all.tgc --json");
    assert_eq!(recorded["events"], 5_004);
    assert_eq!(recorded["inputs"][0]["refused"]["bad_number"], 1);
    assert!(!path.join("all.tgc.part").exists());
    let both = json(path, "replay t.csv m.tgc --bars 1s --json");
    let one = json(path, "replay all.tgc --bars 1s --json");
    assert_eq!(both["outputs"], one["outputs"]);
    let part = json(path, "inspect all.tgc --from 2026-01-05T14:30:01Z --to 2026-01-05T14:30:02Z --json");
    assert!((1..100).contains(&part["events"].as_u64().unwrap()), "{part}");
}

#[test]
fn replay_writes_exact_bars() {
    let folder = trades();
    let path = folder.path();
    let (text, _) = ends(path, "replay t.csv --bars 1s,2t --ind sma:1 --out r", 0);
    for word in ["4 of 2 names", "bad_number 1", "line 6", "digest", "ledger", "balance"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    let bars = std::fs::read_to_string(path.join("r/bars.1s.csv")).unwrap();
    // Up to the revision: what follows says how the input was cut into frames.
    let rows: Vec<_> =
        bars.lines().skip(1).map(|row| row.splitn(13, ',').take(12).collect::<Vec<_>>()).collect();
    let rows: Vec<_> = rows.iter().map(|row| row.join(",")).collect();
    assert_eq!(
        rows,
        [
            "AAPL,1767623400000000000,1767623401000000000,150.25,150.25,150.25,150.25,100,100,150.25,1,0",
            "MSFT,1767623400000000000,1767623401000000000,300.5,300.5,300.5,300.5,10,0,300.5,1,0",
            "AAPL,1767623401000000000,1767623402000000000,150.5,150.5,150.5,150.5,50,50,150.5,1,0",
            "AAPL,1767623402000000000,1767623403000000000,150,150,150,150,25,0,150,1,0",
        ]
    );
    let rows = std::fs::read_to_string(path.join("r/ind.1s.csv")).unwrap();
    assert!(rows.starts_with("symbol,ts_close,sma_1\nAAPL,1767623401000000000,150.25\n"), "{rows}");
}

#[test]
fn results_do_not_depend_on_how_they_are_computed_or_written() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 30k --symbols 30 --session 600s --out m.tgc", 0);
    let plan = "replay m.tgc --bars 1s,100t --ind rsi:14,macd:12:26:9 --json";
    let one = json(path, &format!("{plan} --out one"));
    let four = json(path, &format!("{plan} --out four --shards 4 --placement staged"));
    assert_eq!(one["digest"], four["digest"]);
    assert_eq!((one["imbalance"].as_i64(), one["panics"].as_u64()), (Some(0), Some(0)));
    for stream in ["bars.1s", "ind.1s", "bars.100t", "ind.100t"] {
        let read = |run: &str| std::fs::read(path.join(run).join(format!("{stream}.csv"))).unwrap();
        assert!(read("one") == read("four"), "{stream} differs");
    }
    let lines = json(path, &format!("{plan} --out lines --output jsonl"));
    let table = json(path, &format!("{plan} --out table --output parquet"));
    assert_eq!(lines["digest"], table["digest"]);
    let text = std::fs::read_to_string(path.join("lines/bars.1s.jsonl")).unwrap();
    assert_eq!(text.lines().count() as u64, lines["files"][0]["rows"].as_u64().unwrap());
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

    // Every amended bar once, and as it ended.
    let last = json(path, &format!("{plan} --out last --revisions final"));
    let rows = |run: &Value| run["files"][0]["rows"].as_u64().unwrap();
    assert!(rows(&last) < rows(&one), "nothing was amended");
    let text = std::fs::read_to_string(path.join("last/bars.1s.csv")).unwrap();
    let mut keys: Vec<_> = text.lines().map(|row| row.split(',').take(3).collect::<Vec<_>>()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), text.lines().count(), "a bar is there twice");

    // A reader who keeps the highest revision of each symbol and first trade ends up with the same.
    let read = |run: &str| std::fs::read_to_string(path.join(run).join("bars.100t.csv")).unwrap();
    let (revisions, last) = (read("one"), read("last"));
    let mut bars = std::collections::BTreeMap::new();
    for row in revisions.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let (bar, revision) = ((fields[0], fields[17]), fields[11].parse::<u32>().unwrap());
        let latest = bars.entry(bar).or_insert((revision, row));
        *latest = (revision, row).max(*latest);
    }
    assert!(bars.len() < revisions.lines().count() - 1, "no bar by trades was amended");
    let mut bars: Vec<&str> = bars.into_values().map(|(_, row)| row).collect();
    let mut last: Vec<&str> = last.lines().skip(1).collect();
    bars.sort_unstable();
    last.sort_unstable();
    assert_eq!(bars.len(), last.len());
    for (bar, last) in bars.iter().zip(last) {
        assert_eq!(*bar, last);
    }

    // Late trades set aside have a file of their own.
    let side = json(path, &format!("{plan} --out side --late side"));
    let late = side["files"].as_array().unwrap().iter().find(|file| file["stream"] == "bars.1s.late");
    assert!(late.is_some_and(|file| file["rows"].as_u64() > Some(0)), "{side}");
}

#[test]
fn what_is_computed_follows_from_the_content() {
    let folder = trades();
    let path = folder.path();
    ends(path, "generate network --events 5k --out n.tgc", 0);
    let streams = |line: &str| -> Vec<String> {
        let report = json(path, line);
        report["streams"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(streams("replay t.csv --json"), ["bars.1s", "bars.1m"]);
    assert_eq!(streams("replay n.tgc --json"), ["hosts.1m"]);
    assert_eq!(streams("replay t.csv n.tgc --json"), ["bars.1s", "bars.1m", "hosts.1m"]);
    assert_eq!(streams("replay t.csv --ind ema:3 --json"), ["bars.1s", "ind.1s", "bars.1m", "ind.1m"]);
}

#[test]
fn a_paced_replay_measures_latency() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 2k --symbols 5 --session 20s --out m.tgc", 0);
    let report = json(path, "replay m.tgc --bars 1s --speed 100 --json");
    assert!(report["latency_ns"]["count"].as_u64() > Some(0), "{report}");
    assert!(report["seconds"].as_f64() > Some(0.1), "twenty seconds at 100 times take 200 ms: {report}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_replay_cleanly() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 20k --symbols 5 --session 3600s --out m.tgc", 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let line = "replay m.tgc --bars 1s --speed 1 --out r";
    command.current_dir(path).args(line.split_whitespace()).stdout(std::process::Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    while !path.join("r/bars.1s.csv.part").exists() {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ended early by the user"), "{text}");
    assert!(path.join("r/bars.1s.csv").exists());
}

/// `record` at work on a feed that does not end: it goes on until nobody reads it, or falls silent after some lines. The
/// thread returns the feed, which must stay open for `record` to wait.
#[cfg(unix)]
fn recording(
    path: &Path,
    silent_after: Option<u64>,
) -> (std::process::Child, std::thread::JoinHandle<std::fs::File>) {
    assert!(Command::new("mkfifo").arg(path.join("feed")).status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(path).args("record feed --format csv --out x.tgc".split_whitespace());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let feed = path.join("feed");
    let writer = std::thread::spawn(move || {
        let mut feed = std::fs::File::options().write(true).open(feed).unwrap();
        let mut text = "ts_event,symbol,price,size\n".to_owned();
        for at in 0.. {
            let ts = 1_767_623_400_000_000_000u64 + at * 1_000_003;
            text += &format!("{ts},S{},{}.{:02},{}\n", at % 7, 100 + at * 7919 % 50, at % 97, 1 + at % 13);
            let silent = silent_after == Some(at);
            if silent || text.len() > 1 << 16 {
                // A reader that has gone is the end of it.
                if feed.write_all(text.as_bytes()).is_err() {
                    break;
                }
                text.clear();
            }
            if silent {
                break;
            }
        }
        feed
    });
    // More than one block: one takes some 80 kB.
    while std::fs::metadata(path.join("x.tgc.part")).map_or(0, |file| file.len()) < 100_000 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
    (child, writer)
}

#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_recording_cleanly() {
    let folder = folder();
    let path = folder.path();
    let (child, writer) = recording(path, None);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ended by the user"), "{text}");
    // All that the summary counts is in the file.
    let events = json(path, "inspect x.tgc --json")["events"].as_u64().unwrap();
    let digits: String = text.lines().last().unwrap().replace(',', "");
    assert!(digits.contains(&format!("x.tgc: {events} events of 7 keys")), "{events} events, {text}");
    assert!(!path.join("x.tgc.part").exists());
    drop(writer.join());
}

/// Waits until the process has taken everything out of the pipe and all of its threads wait: nothing but the feed or a signal has it go on.
#[cfg(target_os = "linux")]
fn at_rest(child: &mut std::process::Child, feed: &std::fs::File) {
    let tasks = format!("/proc/{}/task", child.id());
    // `1234 (name) S ...`; a thread that has just ended is none.
    let waits = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
    };
    while rustix::io::ioctl_fionread(feed).unwrap() > 0
        || !std::fs::read_dir(&tasks).unwrap().all(|task| task.map_or(true, waits))
    {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_ctrl_c_leaves_whole_blocks() {
    let folder = folder();
    let path = folder.path();
    let (mut child, writer) = recording(path, Some(1_000_000));
    let feed = writer.join().unwrap();
    at_rest(&mut child, &feed);
    // It waits for the feed, so the first cannot end it; when the second comes in is for the system to say.
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => interrupt(&child),
        }
    };
    assert_eq!(status.code(), Some(130));
    drop(feed);
    assert!(!path.join("x.tgc").exists());
    std::fs::rename(path.join("x.tgc.part"), path.join("part.tgc")).unwrap();
    let (text, error) = ends(path, "inspect part.tgc --json", 3);
    let found: Value = serde_json::from_str(&text).unwrap();
    let events = found["events"].as_u64().unwrap();
    // Blocks end when they are full, and after a second: on a busy machine some are shorter.
    assert!((32_768..=1_000_000).contains(&events), "{events}: {error}");
}

#[test]
fn verify_proves_and_disproves() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 20k --symbols 20 --out m.tgc", 0);
    ends(path, "generate market --events 20k --symbols 20 --seed 2 --out other.tgc", 0);
    ends(path, "replay m.tgc --bars 1s --ind rsi:14 --digest-out m.digest", 0);
    let (text, _) = ends(path, "verify m.tgc --bars 1s --shards 1,3", 0);
    assert!(text.contains("staged") && text.contains("one result"), "{text}");
    let report = json(path, "verify m.tgc --against m.digest --shards 2 --json");
    assert_eq!(report["equal"], true);
    let restored = |by: &Value| {
        let runs = report["runs"].as_array().unwrap();
        runs.iter().filter(|run| run["restore_at"].is_u64() && run["restored_by"] == *by).count()
    };
    assert_eq!((restored(&Value::Null), restored(&3.into()), restored(&2.into())), (2, 1, 1), "{report}");
    let (text, _) = ends(path, "verify other.tgc --against m.digest --shards 1", 1);
    assert!(text.contains("DIFFERS"), "{text}");
    fails(path, "verify m.tgc --against m.digest --bars 1m", 2, &["other settings"]);
    fails(path, "verify m.tgc --against none.digest", 3, &["none.digest"]);
    fails(path, "verify m.tgc --against m.tgc", 3, &["m.tgc"]);
}

#[test]
fn the_demo_runs_in_plain_and_as_json() {
    let folder = folder();
    let (text, _) = ends(folder.path(), "demo --plain --seconds 2", 0);
    assert!(text.contains("events") && text.contains("p99") && text.contains("ledger"), "{text}");
    let report = json(folder.path(), "demo --seconds 1 --json --shards 2");
    assert_eq!(report["imbalance"], 0);
    assert!(report["events"].as_u64() > Some(50_000), "{report}");
}

/// A policy that is none, and a device that is required: said before a file is looked for.
#[test]
fn the_gpu_is_asked_for_by_name() {
    let run = |policy: &str, line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(line.split_whitespace()).env("TIDEGATE_GPU", policy);
        let output = command.output().expect("the binary starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("output is text"))
    };
    for line in ["surface missing.csv --sweep ema:3", "risk missing.csv"] {
        let (code, text) = run("perhaps", line);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("TIDEGATE_GPU: `perhaps` is no policy for the GPU"), "{text}");
        // Where there is a GPU, it is the file that is missing.
        let (code, text) = run("require", line);
        assert!(
            code == Some(2) && text.contains("a GPU is required: ") || code == Some(3),
            "{code:?} {text}"
        );
        let (code, text) = run("off", line);
        assert!(code == Some(3) && !text.contains("GPU"), "{code:?} {text}");
    }
}
