//! Streams derived from bars, as the real binary serves them: what the commands over whole files say, whatever computes it and however
//! often the server begins anew.

use super::common::{Running, command, ends, folder, http, json};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const SECOND: u64 = 1_000_000_000;
/// 2026-01-05T00:00:00Z.
const START: u64 = 1_767_571_200;
const STREAMS: &str = "surface.rsi,surface.rsi.2,surface.worth,corr.spectrum,risk.var";

/// Trades of six symbols, some of which skip seconds, as CSV.
fn trades(from: u64, to: u64) -> String {
    let mut text = "ts,symbol,price,size\n".to_owned();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut prices = [5_000u64; 6];
    for second in 0..to {
        let market = random(41);
        for (symbol, price) in prices.iter_mut().enumerate() {
            *price = *price + market + random(41) - 40;
            let skips = second > 0 && symbol > 3 && random(4) == 0;
            if second >= from && !skips {
                let ts = START + second;
                let _ = writeln!(text, "{ts}.{symbol}00,S{symbol},{}.{:02},1", *price / 100, *price % 100);
            }
        }
    }
    text
}

fn configuration(window: u64) -> String {
    format!(
        "[[stream]]\nbars = \"1s\"\n\
         [[surface]]\nbars = \"1s\"\nsweep = [\"rsi:2..30\"]\n\
         [[surface]]\nname = \"worth\"\nbars = \"1s\"\nshows = \"gain\"\nahead = 3\n\
         sweep = [\"ema:2..5\", \"macd:3:6:4\", \"bb:5:1\"]\n\
         [[spectrum]]\nbars = \"1s\"\nwindow = 20\n\
         [[risk]]\nbars = \"1s\"\nwindow = {window}\nhorizon = \"1m\"\npaths = 20_000\n"
    )
}

/// A server of that configuration that computes as `gpu` says.
fn serve(folder: &Path, gpu: &str, more: &str) -> (Running, Value) {
    let line =
        format!("serve --json --listen 127.0.0.1:0 --http 127.0.0.1:0 --data data --config t.toml {more}");
    let mut command = command(folder, &line);
    command.env("TIDEGATE_GPU", gpu);
    let mut server = Running::of(command);
    let hello = serde_json::from_str(&server.line()).expect("it says where it listens");
    (server, hello)
}

fn place(hello: &Value) -> String {
    format!("--server {} --data data", hello["listening"].as_str().expect("an address"))
}

/// Rows by stream, key and end.
type Rows = BTreeMap<(String, String, u64), Value>;

fn rows(lines: &str) -> Rows {
    let mut rows = Rows::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).expect("a row");
        let text = |field: &str| row[field].as_str().expect("a text").to_owned();
        let key = (text("ch"), text("k"), row["T"].as_u64().expect("an end"));
        assert!(rows.insert(key, row).is_none(), "twice: {line}");
    }
    rows
}

/// What is read until both streams of all symbols, which are the last that were asked for, have told of that second:
/// a reader that has not come yet when its server goes waits for the next one.
fn told(reader: &mut Running, second: u64) -> String {
    let (mut lines, mut told) = (String::new(), 0);
    while told < 2 {
        let line = reader.line();
        let row: Value = serde_json::from_str(&line).expect("a row");
        told += u64::from(row["k"] == "bars.1s" && row["T"] == second * SECOND);
        lines += &(line + "\n");
    }
    lines
}

/// What the commands over the whole file say is what was served last, to the bit.
fn same_as_commands(path: &Path, rows: &Rows, seconds: u64) {
    let last = (START + seconds) * SECOND;
    let surface = |sweep: &str, more: &str| -> Vec<Value> {
        let line = format!("surface day.csv --bars 1s --sweep {sweep} --output jsonl {more}");
        let (text, _) = ends(path, &line, 0);
        text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    };
    let newest = |stream: &str, symbol: &Value| -> &Value {
        let symbol = symbol.as_str().expect("a name");
        let from = (stream.to_owned(), symbol.to_owned(), 0);
        let to = (stream.to_owned(), symbol.to_owned(), u64::MAX);
        rows.range(from..=to).next_back().expect("a row of each symbol").1
    };
    for found in surface("rsi:2..30", "") {
        let column = found["indicator"].as_str().unwrap().replace(':', "_");
        let window: u32 = column[4..].parse().unwrap();
        let stream = if window <= 16 { "surface.rsi" } else { "surface.rsi.2" };
        let row = newest(stream, &found["symbol"]);
        assert!(found["values"][&column].is_number());
        assert_eq!(row[&column], found["values"][&column], "{row} {found}");
        assert_eq!(row["bars"].as_f64(), found["bars"].as_f64(), "{row} {found}");
    }
    for found in surface("ema:2..5,macd:3:6:4,bb:5:1", "--ahead 3") {
        let column = found["indicator"].as_str().unwrap().replace(':', "_");
        assert_eq!(newest("surface.worth", &found["symbol"])[&column], found["mean_gain"], "{found}");
    }
    let (text, _) = ends(path, "spectrum day.csv --bars 1s --window 20 --output jsonl", 0);
    let spectrum: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ready = |row: &&Value| row["ready"].as_f64() == Some(1.0);
    let served: Vec<&Value> =
        rows.values().filter(|row| row["ch"] == "corr.spectrum").filter(ready).collect();
    assert_eq!(served.len(), spectrum.len());
    for (served, found) in served.iter().zip(&spectrum) {
        assert_eq!(served["T"].to_string(), found["end_ns"].as_str().unwrap());
        for column in [
            "correlation",
            "mode_share",
            "effective_rank",
            "absorption",
            "turbulence",
            "label",
            "change_probability",
        ] {
            assert_eq!(served[column], found[column], "{column}: {served} {found}");
        }
        assert_eq!(served["seq"].as_u64(), served["T"].as_u64().map(|end| end / SECOND));
    }
    // After as many readings as a label is of there is one.
    let labelled = served.iter().filter(|row| row["label"].is_number()).count();
    assert_eq!((served[0]["label"].is_null(), labelled), (true, served.len().saturating_sub(32)));
    let risk = json(path, "risk day.csv --bars 1s --horizon 1m --paths 20000 --json", 0);
    let row = &rows[&("risk.var".to_owned(), "bars.1s".to_owned(), last)];
    assert_eq!((row["ready"].as_f64(), row["bars"].as_u64()), (Some(1.0), risk["rows"].as_u64()), "{row}");
    for (level, label) in risk["levels"].as_array().unwrap().iter().zip(["95", "99"]) {
        for (column, field) in [("var", "var"), ("var_low", "var_low"), ("shortfall", "shortfall")] {
            assert_eq!(row[format!("{column}_{label}")], level[field], "{row} {level}");
        }
    }
    // Before there is enough of it, that is what is said.
    let first = &rows[&("risk.var".to_owned(), "bars.1s".to_owned(), last - SECOND)];
    assert_eq!((first["ready"].as_f64(), &first["var_95"]), (Some(0.0), &Value::Null), "{first}");
}

/// The number of rows of returns that `day.csv` has for a risk.
fn risk_rows(path: &Path) -> u64 {
    json(path, "risk day.csv --bars 1s --horizon 1m --paths 1000 --levels 0.95 --json", 0)["rows"]
        .as_u64()
        .unwrap()
}

fn derived(gpu: &str, more: &str) -> Rows {
    const SECONDS: u64 = 70;
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("day.csv"), trades(0, SECONDS)).unwrap();
    std::fs::write(path.join("t.toml"), configuration(risk_rows(path))).unwrap();
    let (server, hello) = serve(path, gpu, more);
    let names: Vec<&str> = hello["streams"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names[1..].join(","), STREAMS);
    let place = place(&hello);
    let mut reader =
        Running::start(path, &format!("subscribe {STREAMS} --from sequence:1 --output jsonl {place}"));
    ends(path, &format!("publish day.csv {place}"), 0);
    let lines = told(&mut reader, START + SECONDS - 1);
    let http = hello["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let metrics = http::get(http, "/metrics", "").text();
    assert!(metrics.contains("tidegate_derived_device{device=\"cpu\"} 1"), "{metrics}");
    let summary = server.summary();
    assert_eq!((&summary["imbalance"], &summary["dropped"]), (&Value::from(0), &Value::from(0)));
    let rows = rows(&(lines + &reader.well()));
    same_as_commands(path, &rows, SECONDS);
    rows
}

#[test]
fn what_is_derived_is_what_the_commands_say() {
    let mut separate = derived("auto", "--threads separate --shards 3");
    // On no device, in one thread, and with other shards: the same rows under the same numbers.
    let mut fused = derived("off", "--threads fused");
    // Steps of a risk that come faster than they are computed give way, and how fast is the machine's affair.
    separate.retain(|key, _| key.0 != "risk.var" || fused.contains_key(key));
    fused.retain(|key, _| key.0 != "risk.var" || separate.contains_key(key));
    assert_eq!(separate, fused);
}

/// Killed half-way, it goes on with the rows, numbers and bits that it would have had.
#[test]
fn what_is_derived_goes_on_after_a_restart() {
    const SECONDS: u64 = 70;
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("day.csv"), trades(0, SECONDS)).unwrap();
    std::fs::write(path.join("first.csv"), trades(0, 45)).unwrap();
    std::fs::write(path.join("rest.csv"), trades(45, SECONDS)).unwrap();
    std::fs::write(path.join("t.toml"), configuration(risk_rows(path))).unwrap();
    let mut all = Rows::new();
    for (file, kill) in [("first.csv", true), ("rest.csv", false)] {
        let (server, hello) = serve(path, "off", "--journal --journal-sync 0s");
        let place = place(&hello);
        let mut reader =
            Running::start(path, &format!("subscribe {STREAMS} --from sequence:1 --output jsonl {place}"));
        ends(path, &format!("publish {file} --ack durable {place}"), 0);
        if kill {
            // 44 of its 45 seconds have closed.
            all.extend(rows(&told(&mut reader, START + 44)));
            server.kill();
            continue;
        }
        let lines = told(&mut reader, START + SECONDS - 1);
        server.summary();
        for (key, row) in rows(&(lines + &reader.well())) {
            // What is told anew of the bars before is what was told of them.
            if let Some(before) = all.insert(key, row.clone()) {
                assert_eq!(before, row);
            }
        }
    }
    same_as_commands(path, &all, SECONDS);
}
