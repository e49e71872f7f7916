//! Configurations with the real binary: checked, explained, served, reloaded.

mod common;

use common::{Running, command, ends, folder, json};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

/// A server and what it said first.
struct Server {
    running: Running,
    hello: Value,
}

impl Server {
    #[track_caller]
    fn start(folder: &Path, options: &str) -> Self {
        let (running, hello) = Running::serve(folder, options);
        Self { running, hello }
    }

    fn streams(&self) -> Vec<&str> {
        self.hello["streams"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    fn address(&self) -> String {
        format!("--server {} --data data", self.hello["listening"].as_str().unwrap())
    }

    /// Sends SIGHUP and returns what the server says of it.
    #[track_caller]
    fn reload(&self) -> Vec<String> {
        self.running.signal("-HUP");
        let mut said = Vec::new();
        loop {
            let line = self.running.note();
            let over = line.starts_with("reload: ") && !line.ends_with(".toml");
            said.push(line);
            if over {
                return said;
            }
        }
    }

    #[track_caller]
    fn end(self) -> Value {
        serde_json::from_str(&self.running.interrupted()).expect("a summary")
    }
}

#[test]
fn every_template_is_checked_and_served() {
    let folder = folder();
    let path = folder.path();
    let (list, _) = ends(path, "config template", 0);
    for name in ["minimal", "market", "network", "full"] {
        assert!(list.contains(name), "{list}");
        let (text, _) = ends(path, &format!("config template {name}"), 0);
        let file = format!("{name}.toml");
        std::fs::write(path.join(&file), text).unwrap();
        let checked = json(path, &format!("config check {file} --json"), 0);
        let server = Server::start(path, &format!("--config {file}"));
        assert_eq!(checked["streams"], server.hello["streams"], "{name}");
        server.end();
    }
    let (_, stderr) = ends(path, "config template markt", 2);
    assert!(stderr.contains("minimal, market, network, full"), "{stderr}");
}

#[test]
fn a_check_ends_with_what_it_found() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("bad.toml"), "[engine]\nshrads = 2\nshards = 0\n").unwrap();
    let (stdout, stderr) = ends(path, "config check bad.toml", 1);
    assert_eq!(stdout, "");
    for words in ["bad.toml:2:1", "did you mean `shards`", "bad.toml:3:10", "1 to 256", "2 problems"] {
        assert!(stderr.contains(words), "`{words}` is not in {stderr}");
    }
    let answer = json(path, "config check bad.toml --json", 1);
    assert_eq!(answer["problems"][0]["nearest"], "shards");
    assert_eq!(
        (&answer["problems"][1]["line"], &answer["problems"][1]["key"]),
        (&3.into(), &"engine.shards".into())
    );
    let (_, stderr) = ends(path, "config check none.toml", 3);
    assert!(stderr.contains("cannot read the configuration none.toml"), "{stderr}");
    std::fs::create_dir(path.join("folder.toml")).unwrap();
    ends(path, "config check folder.toml", 3);
    // The server does not start with it either, and makes nothing.
    let (_, stderr) = ends(path, "serve --config bad.toml --data data", 3);
    assert!(stderr.contains("bad.toml:2:1") && stderr.contains("is no configuration"), "{stderr}");
    assert!(!path.join("data").exists());
}

#[test]
fn explanations_say_which_value_won() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("t.toml"), "[engine]\n\nshards = 3\n[[stream]]\nhosts = \"1m\"\n").unwrap();
    let shards = |line: &str| json(path, line, 0)[0]["values"][0].clone();
    assert_eq!(shards("config explain engine.shards --json")["from"], "default");
    let value = shards("config explain engine.shards --config t.toml --json");
    assert_eq!((&value["value"], &value["from"]), (&"3".into(), &"t.toml:3".into()));
    let value = shards("config explain engine.shards --config t.toml --json -- --shards 4");
    assert_eq!((&value["value"], &value["from"]), (&"4".into(), &"--shards (t.toml:3 says 3)".into()));
    let (text, _) = ends(path, "config explain stream --config t.toml", 0);
    assert!(text.contains("stream[0].hosts") && text.contains("t.toml:5"), "{text}");
    let (text, _) = ends(path, "config explain limits.mtu", 0);
    assert!(text.contains("1200 to 6500") && text.contains("needs a restart"), "{text}");
    let (text, _) = ends(path, "config explain", 0);
    assert!(text.contains("[[auth.rule]]") && text.contains("gateway.ping_every"), "{text}");
    let (_, stderr) = ends(path, "config explain engine.shrads", 2);
    assert!(stderr.contains("did you mean `engine.shards`"), "{stderr}");
    let (_, stderr) = ends(path, "config explain engine -- --shrads 4", 2);
    assert!(stderr.contains("--shards"), "{stderr}");
    let schema: Value = json(path, "config schema", 0);
    assert_eq!(schema["properties"]["engine"]["properties"]["shards"]["maximum"], 256);
}

#[test]
fn options_have_the_last_word() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("t.toml"), "[[stream]]\nbars = \"5m\"\n[[stream]]\nhosts = \"1m\"\n").unwrap();
    let server = Server::start(path, "--config t.toml");
    assert_eq!(server.streams(), ["bars.5m", "hosts.1m"]);
    server.end();
    let server = Server::start(path, "--config t.toml --bars 1s --ind rsi:14");
    assert_eq!(server.streams(), ["bars.1s", "ind.1s"]);
    server.end();
}

#[test]
fn plans_are_told_without_a_server() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("old.toml"), "[[stream]]\nbars = \"1s\"\n").unwrap();
    std::fs::write(
        path.join("new.toml"),
        "[engine]\nshards = 2\n[subscribers]\nsubscriptions_max = 5\n[[stream]]\nbars = \"1s\"\n[[stream]]\nbars = \"5m\"\n",
    )
    .unwrap();
    let (plan, _) = ends(path, "config plan old.toml new.toml", 0);
    assert_eq!(
        plan,
        "~ subscribers.subscriptions_max 10000 -> 5\n+ stream bars.5m added\n! engine.shards 1 -> 2 needs a restart\n"
    );
    assert_eq!(ends(path, "config plan old.toml old.toml", 0).0, "nothing changes\n");
    assert_eq!(json(path, "config plan old.toml new.toml --json", 0)["restart"], true);
}

/// While a feed publishes, the server is told to read its file again: good ones and bad ones. Nothing is lost, and only what
/// was allowed to change did.
#[test]
fn a_reload_changes_what_it_said_and_loses_nothing() {
    let folder = folder();
    let path = folder.path();
    let write = |text: &str| std::fs::write(path.join("t.toml"), text).unwrap();
    let streams = "[[stream]]\nbars = \"1s\"\nindicators = [\"rsi:14\"]\n";
    ends(path, "generate market --events 100k --symbols 20 --out day.tgc", 0);
    write(streams);
    let server = Server::start(path, "--config t.toml");
    let address = server.address();
    // More than is kept for lookback.
    ends(path, &format!("subscribe bars.1s --from lookback:300 --idle-exit 100ms {address}"), 3);
    let mut publish = command(path, &format!("publish day.tgc {address}"));
    let mut publish = publish.stdout(Stdio::null()).spawn().expect("the binary starts");
    write(&format!("[subscribers]\nlookback_records = 512\nlookback_total = 10\n{streams}"));
    let said = server.reload();
    let tail = &said[said.len() - 4..];
    assert_eq!(
        tail,
        [
            "reload: t.toml",
            "~ subscribers.lookback_records 256 -> 512",
            "~ subscribers.lookback_total 524288 -> 10",
            "reload: 2 applied"
        ]
    );
    ends(path, &format!("subscribe bars.1s --from lookback:300 --idle-exit 100ms {address}"), 0);
    // A mistake, whatever else is in the file, changes nothing.
    write(&format!("[subscribers]\nlookback_records = 100\nlookbacks = 3\n{streams}"));
    let said = server.reload().join("\n");
    assert!(said.contains("t.toml:3:1") && said.ends_with("reload: refused, nothing changed"), "{said}");
    std::fs::remove_file(path.join("t.toml")).unwrap();
    let said = server.reload().join("\n");
    assert!(said.contains("cannot read t.toml") && said.ends_with("nothing changed"), "{said}");
    ends(path, &format!("subscribe bars.1s --from lookback:300 --idle-exit 100ms {address}"), 0);
    // What needs a restart is said each time, and the rest is done.
    for _ in 0..2 {
        write(&format!(
            "[engine]\nshards = 2\n[subscribers]\nlookback_records = 512\nlookback_total = 10\n{streams}"
        ));
        let said = server.reload().join("\n");
        assert!(said.contains("! engine.shards 1 -> 2 needs a restart"), "{said}");
        assert!(said.ends_with("reload: 0 applied, 1 after a restart"), "{said}");
    }
    assert!(publish.wait().expect("it ends").success());
    let served = server.end();
    let replayed = json(path, "replay day.tgc --bars 1s --ind rsi:14 --json", 0);
    assert_eq!(served["digest"], replayed["digest"]);
    assert_eq!(served["imbalance"], 0);
}

/// Seconds `from..to` of five symbols, four trades each, as lines of CSV.
fn seconds(from: u64, to: u64) -> String {
    let mut text = if from == 0 { "ts,symbol,price,size\n".to_owned() } else { String::new() };
    for (second, part, symbol) in
        (from..to).flat_map(|second| (0..20).map(move |at| (second, at / 5, at % 5)))
    {
        let price = 100 + (second * 7 + symbol * 3 + part) % 11;
        let ts = 1_700_000_000 + second;
        text += &format!("{ts}.{:03},S{symbol},{price},{}\n", part * 200, 1 + part);
    }
    text
}

/// Streams come, go and change while a feed publishes and readers read: who is not concerned notices nothing, who is goes on without
/// a gap, and no event is lost.
#[test]
fn streams_change_while_it_runs() {
    for layout in ["--threads fused", "--threads separate --placement staged"] {
        let folder = folder();
        let path = folder.path();
        let write = |text: &str| std::fs::write(path.join("t.toml"), text).unwrap();
        write("[[stream]]\nbars = \"1s\"\nindicators = [\"rsi:3\"]\n[[stream]]\nbars = \"1m\"\n");
        let server = Server::start(path, &format!("--config t.toml --shards 2 {layout}"));
        let address = server.address();
        let read = |stream: &str, more: &str| {
            let line = format!("subscribe {stream} --from sequence:1 --output jsonl {more} {address}");
            Running::start(path, &line)
        };
        let (bars, indicators, minutes) =
            (read("bars.1s", "--count 195"), read("ind.1s", "--count 195"), read("bars.1m", ""));
        let mut feed = Running::start(path, &format!("publish - {address}"));
        let mut input = feed.stdin();
        input.write_all(seconds(0, 20).as_bytes()).unwrap();
        // Bars of 18 seconds have closed, so what the feed sent has arrived.
        assert_eq!(read("bars.1s", "--count 90").well().lines().count(), 90);

        write("[[stream]]\nbars = \"1s\"\nindicators = [\"sma:2\", \"rsi:3\"]\n[[stream]]\nbars = \"5s\"\n");
        let said = server.reload();
        let plan = [
            "~ stream ind.1s changed: it begins anew",
            "- stream bars.1m removed",
            "+ stream bars.5s added",
            "reload: 3 applied",
        ];
        assert_eq!(said[said.len() - 4..], plan);
        // What was removed is gone for whoever reads it, and for whoever asks.
        let (_, notes, code) = minutes.rest();
        assert_eq!(code, Some(3), "{notes}");
        assert!(
            notes.contains("there is no stream `bars.1m`; there are bars.1s, ind.1s, bars.5s"),
            "{notes}"
        );
        input.write_all(seconds(20, 40).as_bytes()).unwrap();
        drop(input);
        feed.well();

        // 39 of 40 seconds have closed. The bars are those of an undisturbed run.
        let bars = bars.well();
        std::fs::write(path.join("all.csv"), seconds(0, 40)).unwrap();
        ends(path, "replay all.csv --bars 1s --output jsonl --out all", 0);
        let replayed = std::fs::read_to_string(path.join("all/bars.1s.jsonl")).unwrap();
        let closed = |text: &str| -> std::collections::BTreeSet<String> {
            let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
            let field = |value: &Value| {
                ["k", "T", "o", "h", "l", "c", "v", "n"].map(|key| value[key].to_string()).join(" ")
            };
            text.lines().map(|line| field(&value(line))).collect()
        };
        let (bars, replayed) = (closed(&bars), closed(&replayed));
        assert_eq!(bars.len(), 195);
        assert!(bars.is_subset(&replayed), "{:?}", bars.difference(&replayed).next());

        // The rows of the indicators change their columns at one bar, and number on.
        let (rows, notes, code) = indicators.rest();
        assert_eq!(code, Some(0), "{notes}");
        assert!(
            notes.contains("stream `ind.1s` was changed") && notes.contains("it goes on where it stopped"),
            "{notes}"
        );
        let rows: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        for symbol in ["S0", "S1", "S2", "S3", "S4"] {
            let of: Vec<_> = rows.iter().filter(|row| row["k"] == symbol).collect();
            let ends: Vec<_> =
                of.iter().map(|row| row["T"].as_u64().unwrap() / 1_000_000_000 - 1_700_000_000).collect();
            assert_eq!(ends, (1..=39).collect::<Vec<_>>(), "{symbol}");
            let anew = of.iter().position(|row| row.get("sma_2").is_some()).expect("the change");
            assert!(of[anew..].iter().all(|row| row.get("sma_2").is_some()), "{symbol}");
            assert!(of[anew]["sma_2"].is_null() && of[anew + 1]["sma_2"].is_number(), "it begins anew");
        }
        // What came is complete from its first whole window on.
        let fives = read("bars.5s", "--count 15").well();
        assert!(fives.lines().any(|line| line.contains("\"n\":20")), "{fives}");
        let served = server.end();
        assert_eq!((&served["imbalance"], &served["events"]), (&Value::from(0), &Value::from(800)));
    }
}

/// What is derived comes, changes and goes too; what stays goes on, and what reads other bars begins anew.
#[test]
fn what_is_derived_changes_while_it_runs() {
    let folder = folder();
    let path = folder.path();
    let write = |text: &str| std::fs::write(path.join("t.toml"), text).unwrap();
    let bars = "[[stream]]\nbars = \"1s\"\n";
    let surface = "[[surface]]\nbars = \"1s\"\nsweep = [\"ema:2..3\"]\n";
    write(&format!("{bars}{surface}[[spectrum]]\nbars = \"1s\"\nwindow = 4\n"));
    let server = Server::start(path, "--config t.toml --shards 2");
    let address = server.address();
    let read = |stream: &str, count: u32| {
        let line = format!(
            "subscribe {stream} --from sequence:1 --output jsonl --idle-exit 20s --count {count} {address}"
        );
        let text = Running::start(path, &line).well();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let mut feed = Running::start(path, &format!("publish - {address}"));
    let mut input = feed.stdin();
    input.write_all(seconds(0, 20).as_bytes()).unwrap();
    assert_eq!(read("corr.spectrum", 19).len(), 19);

    let wider = "[[surface]]\nname = \"wide\"\nbars = \"1s\"\nsweep = [\"rsi:2..20\"]\n";
    write(&format!("{bars}{surface}{wider}[[spectrum]]\nbars = \"1s\"\nwindow = 6\n"));
    let said = server.reload();
    let plan = [
        "~ stream corr.spectrum changed: it begins anew",
        "+ stream surface.wide added",
        "+ stream surface.wide.2 added",
        "reload: 3 applied",
    ];
    assert_eq!(said[said.len() - 4..], plan);
    input.write_all(seconds(20, 40).as_bytes()).unwrap();
    drop(input);
    feed.well();

    // Nobody who reads the surface that stayed misses a row or gets one twice.
    let rows = read("surface.ema", 195);
    for symbol in ["S0", "S1", "S2", "S3", "S4"] {
        let of = rows.iter().filter(|row| row["k"] == symbol);
        let bars: Vec<u64> = of.map(|row| row["bars"].as_f64().unwrap() as u64).collect();
        assert_eq!(bars, (1..=39).collect::<Vec<_>>(), "{symbol}");
    }
    // One that is added knows the bars that readers can look back on, and tells the newest of them.
    let wide = read("surface.wide.2", 20 * 5 + 5);
    assert!(wide.iter().all(|row| row["rsi_20"].is_number() == (row["bars"].as_f64().unwrap() > 20.0)));
    // The other window from the newest step before the change on, and the numbers go on.
    let spectra = read("corr.spectrum", 21);
    let numbers: Vec<u64> = spectra.iter().map(|row| row["seq"].as_u64().unwrap() - 1_700_000_000).collect();
    assert_eq!(numbers, (19..=39).collect::<Vec<_>>());
    assert!(spectra.iter().all(|row| row["bars"].as_f64() == Some(6.0)), "{spectra:?}");

    write(bars);
    let said = server.reload();
    assert_eq!(said.last().map(String::as_str), Some("reload: 4 applied"), "{said:?}");
    let (_, notes, code) = Running::start(path, &format!("subscribe surface.ema {address}")).rest();
    assert!(
        code == Some(3) && notes.contains("there is no stream `surface.ema`; there are bars.1s"),
        "{notes}"
    );
    assert_eq!(server.end()["imbalance"], 0);
}

/// What a configuration serves, a replay with it computes: also what no option can say.
#[test]
fn a_configuration_is_replayed_as_it_is_served() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 100k --symbols 20 --out day.tgc", 0);
    let text = "[engine]\ndisorder = \"20ms\"\nfence = \"off\"\n[bars]\nhistory_span = \"5m\"\n\
                [[stream]]\nbars = \"1s\"\nindicators = [\"rsi:14\"]\n\
                [[stream]]\nbars = \"1m@1s\"\nindicators = [\"sma:3\"]\n\
                [[stream]]\nbars = \"1000t\"\nlate = \"side\"\nhistory = false\n";
    std::fs::write(path.join("t.toml"), text).unwrap();
    let server = Server::start(path, "--config t.toml --shards 2 --placement staged");
    assert_eq!(server.streams(), ["bars.1s", "ind.1s", "bars.1m@1s", "ind.1m@1s", "bars.1000t"]);
    ends(path, &format!("publish day.tgc {}", server.address()), 0);
    let served = server.end();
    let replayed = json(path, "replay day.tgc --config t.toml --json --digest-out d.digest", 0);
    assert_eq!(served["digest"], replayed["digest"]);
    // The digest says what was computed, and the configuration computes it again.
    ends(path, "verify day.tgc --shards 1,2 --against d.digest", 0);
    ends(path, "verify day.tgc --shards 1 --against d.digest --config t.toml", 0);
    let (_, stderr) = ends(path, "verify day.tgc --against d.digest --config t.toml --late drop", 2);
    assert!(stderr.contains("other settings"), "{stderr}");
    let without = json(path, "replay day.tgc --bars 1s,1m@1s,1000t --ind rsi:14 --json", 0);
    assert_ne!(without["digest"], replayed["digest"]);
}

/// How a node is spread over threads can be said in the file; the command line has the last word.
#[test]
fn threads_are_asked_for_in_the_file_or_on_the_command_line() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("t.toml"), "[engine]\nthreads = \"separate\"\n").unwrap();
    for (options, threads) in [
        ("--config t.toml", "separate"),
        ("--config t.toml --threads fused", "fused"),
        ("--threads fused", "fused"),
    ] {
        let server = Server::start(path, options);
        assert_eq!(server.hello["threads"], threads, "{options}");
        server.end();
    }
}

/// Certificates are renewed in place; a key that is not theirs changes nothing.
#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = folder();
    let path = folder.path();
    ends(path, "certs init --dir old", 0);
    ends(path, "certs init --dir new", 0);
    ends(path, "generate market --events 2k --symbols 5 --out a.tgc", 0);
    let put = |from: &str, what: &str| {
        std::fs::copy(path.join(format!("{from}/server-{what}.pem")), path.join(format!("{what}.pem")))
            .unwrap();
    };
    put("old", "cert");
    put("old", "key");
    std::fs::write(path.join("t.toml"), "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n").unwrap();
    let server = Server::start(path, "--config t.toml");
    let publish = |name: &str, ca: &str, code| {
        let address = server.address();
        ends(
            path,
            &format!("publish a.tgc {address} --ca {ca}/ca-cert.pem --name {name} --give-up-after 2s"),
            code,
        );
    };
    publish("first", "old", 0);
    put("new", "cert");
    let said = server.reload().join("\n");
    assert!(said.ends_with("reload: refused, nothing changed"), "{said}");
    publish("second", "old", 0);
    put("new", "key");
    let said = server.reload().join("\n");
    assert!(said.ends_with("reload: nothing changed but what certificates and keys say"), "{said}");
    publish("third", "new", 0);
    publish("fourth", "old", 3);
    let summary = server.end();
    assert_eq!(summary["events"], 6_000);
    assert_eq!(summary["imbalance"], 0);
}

/// A journal is asked for in the file as on the command line; the next server goes on from it.
#[test]
fn a_journal_of_the_configuration_outlives_the_server() {
    let folder = folder();
    let path = folder.path();
    ends(path, "generate market --events 2k --symbols 5 --out a.tgc", 0);
    std::fs::write(path.join("t.toml"), "[journal]\nenabled = true\nsync = \"0s\"\n").unwrap();
    let server = Server::start(path, "--config t.toml");
    let published = json(path, &format!("publish a.tgc --ack durable --json {}", server.address()), 0);
    assert_eq!(published["acked"], 2_000);
    let first = server.end();
    let again = Server::start(path, "--config t.toml").end();
    for what in ["events", "digest", "imbalance"] {
        assert_eq!(again[what], first[what], "{what}: {again}");
    }
    assert_eq!(first["events"], 2_000);
    let (_, stderr) = ends(path, "serve --journal-sync 1ms --data other --listen 127.0.0.1:0 --http off", 2);
    assert!(stderr.contains("add --journal"), "{stderr}");
}
