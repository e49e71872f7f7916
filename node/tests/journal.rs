//! `tidegate journal` as its user calls it, on the journal that version 1 wrote.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/journal/tests/golden");
const SEGMENT: &str = "0000000000000000.tgj";

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A copy of the journal, changed.
fn copy(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(Path::new(GOLDEN).join(SEGMENT)).unwrap();
    change(&mut bytes);
    std::fs::write(folder.join(SEGMENT), bytes).unwrap();
    folder.to_owned()
}

#[test]
fn a_sound_journal_is_shown_checked_and_exported() {
    let shown = json(&tidegate(&["journal", "inspect", GOLDEN, "--json"]));
    assert_eq!((shown["records"].as_u64(), shown["entries"]["events"].as_u64()), (Some(10), Some(3)));
    assert_eq!(shown["sources"][0]["name"], "nyse");
    assert_eq!(shown["sources"][0]["last"], 9);
    assert_eq!(shown["tail"]["state"], "clean");
    let checked = tidegate(&["journal", "verify", GOLDEN]);
    assert!(checked.status.success());
    assert!(
        stdout(&checked).starts_with("sound: 10 records in 2 batches of 1 segments, offsets 0 to 10, chain ")
    );
    let lines = tidegate(&["journal", "export", GOLDEN]);
    assert_eq!(stdout(&lines).lines().count(), 10, "a line for each record");
    let some = tidegate(&["journal", "export", GOLDEN, "--from", "3", "--count", "1"]);
    assert!(stdout(&some).contains("\"offset\":3") && stdout(&some).lines().count() == 1);

    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("day.tgc");
    let made = tidegate(&["journal", "export", GOLDEN, "--out", capture.to_str().unwrap()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let inspected = json(&tidegate(&["inspect", "--json", capture.to_str().unwrap()]));
    assert_eq!(inspected["events"], 3);
    assert_eq!(inspected["top_keys"][0]["name"], "ETHUSD");
}

#[test]
fn damage_is_told_with_its_place_and_a_torn_end_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = copy(folder.path(), |bytes| bytes[400] ^= 4);
    let damaged = damaged.to_str().unwrap();
    let checked = tidegate(&["journal", "verify", damaged, "--json"]);
    assert_eq!(checked.status.code(), Some(1));
    let told = json(&checked);
    assert_eq!((told["sound"].as_bool(), told["records_read"].as_u64()), (Some(false), Some(5)));
    assert_eq!((told["damage"]["at"].as_u64(), told["damage"]["offset"].as_u64()), (Some(384), Some(5)));
    let exported = tidegate(&["journal", "export", damaged]);
    assert_eq!((exported.status.code(), stdout(&exported).lines().count()), (Some(3), 5));

    let torn = copy(folder.path(), |bytes| bytes.truncate(500));
    let checked = tidegate(&["journal", "verify", torn.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(stdout(&checked).contains("end torn: 116 B at byte 384 of segment 0"), "{}", stdout(&checked));
}

#[test]
fn what_is_no_journal_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    for command in ["inspect", "verify", "export"] {
        let refused = tidegate(&["journal", command, empty]);
        assert_eq!(refused.status.code(), Some(3), "{command}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no journal here"));
    }
    let refused = tidegate(&["journal", "export", GOLDEN, "--out", "day.csv"]);
    assert_eq!(refused.status.code(), Some(2));
}
