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
fn the_data_folder_of_a_server_is_taken_as_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (data, journal) = (folder.path().to_str().unwrap(), folder.path().join("journal"));
    std::fs::create_dir(&journal).unwrap();
    let refused = tidegate(&["journal", "verify", data]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && said.contains("there is no journal here yet"), "{said}");

    copy(&journal, |_| {});
    let journal = journal.to_str().unwrap();
    for command in ["inspect", "verify"] {
        let shown = json(&tidegate(&["journal", command, data, "--json"]));
        assert_eq!(
            (shown["path"].as_str(), shown["records"].as_u64()),
            (Some(journal), Some(10)),
            "{command}"
        );
    }
    let shown = tidegate(&["journal", "verify", data]);
    assert!(shown.status.success() && stdout(&shown).starts_with("sound: 10 records"));
    let note = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(note.contains(&format!("reading {journal}, the journal of this data folder")), "{note}");
    let [of_data, of_journal] = [data, journal].map(|place| tidegate(&["journal", "export", place]));
    assert_eq!((stdout(&of_data).lines().count(), of_data.stdout), (10, of_journal.stdout));
    assert!(of_journal.stderr.is_empty(), "nothing is said of a folder that was named");
    // Segments in the folder itself come first.
    copy(folder.path(), |bytes| bytes.truncate(500));
    assert_eq!(json(&tidegate(&["journal", "verify", data, "--json"]))["path"], data);
}

#[test]
fn of_a_clusters_node_it_is_said_what_there_is_instead() {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node-1");
    for (log, files) in [("log", 1), ("group-2/log", 2), ("group-10/log", 1)] {
        std::fs::create_dir_all(node.join(log)).unwrap();
        for file in 0..files {
            std::fs::write(node.join(log).join(format!("{file:020}.tgr")), [0; 64]).unwrap();
        }
    }
    std::fs::create_dir(node.join("group-3")).unwrap();
    let refused = |place: &Path| {
        let refused = tidegate(&["journal", "verify", place.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(3));
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let said = refused(&node);
    let log =
        |group: u16, log: &str, size: &str| format!("group {group} ({}, {size})", node.join(log).display());
    let all = [
        log(0, "log", "1 file, 64 B"),
        log(2, "group-2/log", "2 files, 128 B"),
        log(10, "group-10/log", "1 file, 64 B"),
    ];
    assert!(said.contains("the folder of a cluster's node") && said.contains(&all.join(", ")), "{said}");
    assert!(!said.contains("group 3"), "{said}");
    let said = refused(&node.join("group-2/log"));
    assert!(said.contains("(2 files, 128 B) are the log of a cluster's node"), "{said}");
    let said = refused(folder.path());
    assert!(said.contains("a cluster's folder") && said.contains(node.to_str().unwrap()), "{said}");
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
