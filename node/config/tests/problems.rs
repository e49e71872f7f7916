//! What is said about mistakes, word for word.

use std::fmt::Write as _;
use tidegate_config::{BYTES_MAX, Config, read};

/// What is said about a text.
#[track_caller]
fn said(text: impl AsRef<[u8]>) -> String {
    let problems = read(text.as_ref()).expect_err("a mistake");
    problems.render("tidegate.toml", false)
}

/// Each mistake, and what is said about it. `golden.txt` is written by `UPDATE_GOLDEN=1 cargo test -p tidegate-config`.
const MISTAKES: [(&str, &str); 56] = [
    ("a key spelled almost right", "[engine]\nshrads = 2\n"),
    ("a section spelled almost right", "[engin]\nshards = 2\n"),
    ("a key that resembles nothing", "[engine]\nxyzzy = 2\n"),
    ("a key in the wrong section", "[listen]\nshards = 2\n"),
    ("a key outside of sections", "shards = 2\n"),
    ("a text for a number", "[engine]\nshards = \"two\"\n"),
    ("a number for a text", "[listen]\nquic = 7443\n"),
    ("a number for a span", "[engine]\nidle_after = 10\n"),
    ("a fraction for a number", "[engine]\nshards = 1.5\n"),
    ("a number for a switch", "[engine]\npin = 1\n"),
    ("a table for a value", "[engine.shards]\nmax = 2\n"),
    ("a value for a section", "engine = 3\n"),
    ("a single table for a repeating section", "[stream]\nbars = \"1s\"\n"),
    ("a number above its range", "[engine]\nshards = 257\n"),
    ("a number below its range", "[engine]\nshards = -1\n"),
    ("a number beyond any", "[engine]\nnames_max = 9223372036854775808\n"),
    ("a span out of range", "[feed]\nsilence = \"1ms\"\n"),
    ("a span without a unit", "[engine]\nidle_after = \"10\"\n"),
    ("bytes in units of the wrong kind", "[limits]\nreceive_window = \"64kb\"\n"),
    ("bytes out of range", "[limits]\nsend_window = \"4GiB\"\n"),
    ("a word spelled almost right", "[engine]\nplacement = \"stagd\"\n"),
    ("an address that is none", "[listen]\nhttp = \"localhost:8080\"\n"),
    ("an item of a list", "[[stream]]\nbars = \"1s\"\nindicators = [\"rsi:14\", \"rsy:14\", 3]\n"),
    ("bars that are none", "[[stream]]\nbars = \"1 second\"\n"),
    ("a stream that is nothing", "[[stream]]\nlate = \"side\"\n"),
    ("a stream that is two", "[[stream]]\nbars = \"1s\"\nhosts = \"1s\"\n"),
    ("a stream twice", "[[stream]]\nbars = \"1s\"\n\n[[stream]]\nbars = \"1s\"\n"),
    ("a roll-up of nothing", "[[stream]]\nbars = \"1m@1s\"\n"),
    ("a roll-up with a policy", "[[stream]]\nbars = \"1s\"\n[[stream]]\nbars = \"1m@1s\"\nlate = \"drop\"\n"),
    ("indicators over hosts", "[[stream]]\nhosts = \"1m\"\nindicators = [\"rsi:14\"]\n"),
    ("windows that reach too far", "[[stream]]\nbars = \"sliding:10s/1s\"\nhorizon = \"4h\"\n"),
    ("times the wrong way round", "[gateway]\nidle_timeout = \"10s\"\n"),
    ("a node with a journal", "[cluster]\nfolder = \"lab/node-1\"\n\n[journal]\nenabled = true\n"),
    ("a node with an address", "[listen]\nquic = \"127.0.0.1:7443\"\n[cluster]\nfolder = \"lab/node-1\"\n"),
    ("half a certificate", "[tls]\ncert = \"server.pem\"\n"),
    ("a verb spelled almost right", "[[auth.rule]]\nprincipal = \"desk-*\"\nverbs = [\"publsh\"]\n"),
    ("tokens for nobody", "[auth]\ntoken_keys = [\"keys.pem\"]\n"),
    ("a quota below its range", "[quotas]\nbytes_per_second = \"1KiB\"\n"),
    ("a surface of nothing", "[[surface]]\nbars = \"1m\"\n"),
    ("a surface of no bars", "[[surface]]\nsweep = [\"rsi:2..30\"]\n"),
    ("a surface of bars that are not there", "[[surface]]\nbars = \"5m\"\nsweep = [\"rsi:2..30\"]\n"),
    ("a range the wrong way round", "[[surface]]\nbars = \"1m\"\nsweep = [\"rsi:30..2\"]\n"),
    ("a surface without a name", "[[surface]]\nbars = \"1m\"\nsweep = [\"rsi:2..30\", \"ema:5..9\"]\n"),
    ("a surface of too much", "[[surface]]\nbars = \"1m\"\nsweep = [\"ema:1..226\"]\n"),
    ("a name that is none", "[[spectrum]]\nname = \"My own\"\nbars = \"1m\"\n"),
    ("a key of a surface spelled almost right", "[[surface]]\nbars = \"1m\"\nsweeps = [\"rsi:2..30\"]\n"),
    ("a spectrum twice", "[[spectrum]]\nbars = \"1m\"\n[[spectrum]]\nbars = \"1s\"\n"),
    ("a spectrum of bars that end apart", "[[stream]]\nbars = \"100t\"\n[[spectrum]]\nbars = \"100t\"\n"),
    (
        "a window that no restart brings back",
        "[journal]\nenabled = true\n[[spectrum]]\nbars = \"1m\"\nwindow = 512\n",
    ),
    (
        "a spectrum whose label no restart brings back",
        "[journal]\nenabled = true\n[[spectrum]]\nbars = \"1m\"\nwindow = 223\n",
    ),
    ("a level beyond what is simulated", "[[risk]]\nbars = \"1m\"\nlevels = [0.9999]\npaths = 50_000\n"),
    ("a level that is none", "[[risk]]\nbars = \"1m\"\nlevels = [0.99, 99]\nhorizon = \"1 day\"\n"),
    ("a tail spelled wrong", "[[risk]]\nbars = \"1m\"\ntail = \"t:2\"\nshrink = 0.1\n"),
    ("a broken text", "[engine\nshards = 2\n"),
    ("a key twice", "[engine]\nshards = 2\nshards = 3\n"),
    ("several at once", "[engine]\nshards = 0\nbatch = 3\n\n[listen]\nquick = \"127.0.0.1:1\"\n"),
];

#[test]
fn mistakes_are_named_with_place_range_and_nearest_spelling() {
    let mut text = String::new();
    for (about, mistake) in MISTAKES {
        let _ = write!(text, "## {about}\n{}\n", said(mistake));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (ours, theirs) in text.split("\n## ").zip(golden.split("\n## ")) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(text, golden);
}

#[test]
fn places_count_characters() {
    let problems = read("[engine]\n# äöü\nidle = \"späth\"\n\tshards = \"ü\"".as_bytes()).unwrap_err();
    let places: Vec<_> = problems.list.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(3, 8), (4, 11)]);
    assert_eq!(problems.list[0].key, "engine.idle");
}

#[test]
fn what_is_no_text_is_refused() {
    assert!(said(b"[engine]\nshards = \xff\n").contains("UTF-8"));
    assert!(said(b"\xff\xfe[\0e\0").contains("UTF-8"));
    assert!(said(b"[engine]\nshards = \0\n").contains("no TOML"));
}

#[test]
fn a_file_beyond_the_bound_is_not_looked_at() {
    let large = vec![b'#'; 10 << 20];
    assert!(said(&large).contains("more than 1024 KiB"));
    let mut largest = vec![b'#'; BYTES_MAX];
    assert_eq!(read(&largest).unwrap().config, Config::default());
    largest.push(b'#');
    assert!(read(&largest).is_err());
}

#[test]
fn depth_and_length_end_in_a_short_answer() {
    let nested = format!("[engine]\nshards = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let dotted = format!("[engine]\n{}x = 1\n", "a.".repeat(400_000));
    let tables = format!("[{}x]\n", "a.".repeat(400_000));
    let inline = format!("engine = {}1{}\n", "{a=".repeat(100_000), "}".repeat(100_000));
    let name = format!("[{}]\n", "x".repeat(1_000_000));
    let value = format!("[engine]\nplacement = \"{}\"\n", "x".repeat(1_000_000));
    let many: String = (0..60_000).map(|at| format!("key{at} = 1\n")).collect();
    let streams = "[[stream]]\n".repeat(90_000);
    let unfinished = "[[stream]\n".repeat(90_000);
    for text in [nested, dotted, tables, inline, name, value, many, streams, unfinished] {
        let said = said(&text);
        assert!(said.len() < 20_000, "{} bytes: {}", said.len(), &said[..2_000]);
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    for text in ["", "\n\n", "# nothing\n", "\u{feff}", "[engine]\n[listen]\n", "\r\n"] {
        assert_eq!(read(text.as_bytes()).unwrap().config, Config::default(), "{text:?}");
    }
}

#[test]
fn what_is_hostile_does_not_steer_a_terminal() {
    let said = said("[engine]\n\"\\u001b[31mred\" = 1\nplacement = \"\\u001b[2J\"\n# \u{202e}\n");
    assert!(!said.contains('\x1b'), "{said:?}");
}
